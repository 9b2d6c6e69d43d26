from pathlib import Path

import pytest

from lastcli.families import family_named
from lastcli.mappings import convert, load_mapping
from lastcli.plan import build_plan

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))
SETTINGS = {  # layers, d_model, ssm_size, blocks, activation, full accuracy, LAST's ratio
    "s5_listops": (8, 128, 16, 8, "half_glu2", 0.6148, 0.0),
    "s5_text": (6, 256, 192, 12, "half_glu2", 0.8888, 0.6),
    "s5_retrieval": (6, 128, 256, 16, "half_glu1", 0.9120, 0.5),
    "s5_image": (6, 512, 384, 3, "half_glu1", 0.8730, 0.3),
    "s5_pathfinder": (6, 192, 256, 8, "half_glu1", 0.9515, 0.3),
    "s5_pathx": (6, 128, 256, 16, "half_glu1", 0.9841, 0.3),
    "s5_speech": (6, 96, 128, 16, "half_glu1", 0.9643, 0.2),
    "s5_smnist": (4, 96, 128, 1, "half_glu1", None, None),
}


def test_there_is_a_recipe_for_every_published_setting_and_the_bundled_model():
    assert {path.stem for path in RECIPES} == {*SETTINGS, "digits"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_plan_and_its_model_uses_known_options(path):
    plan = build_plan({}, path)
    model = dict(plan.model)
    options = {option.key: option for option in family_named(model.pop("family")).options}
    assert set(model) <= set(options)
    for key, value in model.items():
        option = options[key]
        read = convert(value, option.kind, key)
        assert not option.choices or read in option.choices
    assert plan.data is not None
    assert plan.calibration is not None


@pytest.mark.parametrize("name", SETTINGS)
def test_a_published_setting_is_the_published_one(name):
    layers, width, size, blocks, activation, accuracy, ratio = SETTINGS[name]
    recipe = load_mapping(next(path for path in RECIPES if path.stem == name))
    paper = recipe["paper"]
    assert (paper["layers"], paper["d_model"], paper["ssm_size"], paper["blocks"]) == (layers, width, size, blocks)
    assert paper["stored_states"] == size // 2
    assert recipe["model"]["activation"] == activation
    assert recipe["model"]["bidirectional"] is (name != "s5_smnist")
    assert recipe["model"]["clip_eigs"] is (name == "s5_image")
    if accuracy is not None:
        assert paper["accuracy"] == pytest.approx(accuracy)
        assert paper["last"]["ratio"] == ratio
        assert build_plan({}, next(path for path in RECIPES if path.stem == name)).ratio in (None, paper_ratio(ratio))


def paper_ratio(ratio):
    from lastcli.plan.ratios import parse_ratio

    return parse_ratio(ratio)
