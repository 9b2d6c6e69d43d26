from pathlib import Path

import pytest

from lastcli.families import family_named
from lastcli.mappings import convert, load_mapping
from lastcli.plan import build_plan

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))
SETTINGS = {  # layers, d_model, ssm_size, blocks, activation, full accuracy
    "s5_listops": (8, 128, 16, 8, "half_glu2", 0.6148),
    "s5_text": (6, 256, 192, 12, "half_glu2", 0.8888),
    "s5_retrieval": (6, 128, 256, 16, "half_glu1", 0.9120),
    "s5_image": (6, 512, 384, 3, "half_glu1", 0.8730),
    "s5_pathfinder": (6, 192, 256, 8, "half_glu1", 0.9515),
    "s5_pathx": (6, 128, 256, 16, "half_glu1", 0.9841),
    "s5_speech": (6, 96, 128, 16, "half_glu1", 0.9643),
    "s5_smnist": (4, 96, 128, 1, "half_glu1", None),
}
# method, ratio, accuracy as the papers print them
PUBLISHED = {
    "s5_listops": [("last", 0.0, 0.6148), ("aire", 0.2, 0.6148)],
    "s5_text": [("last", 0.6, 0.8852), ("aire", 0.8, 0.8824), ("last", 0.7, 0.8505), ("last", 0.9, 0.5708)],
    "s5_retrieval": [("last", 0.5, 0.9042), ("aire", 0.5, 0.9011)],
    "s5_image": [("last", 0.3, 0.8634), ("aire", 0.65, 0.8730)],
    "s5_pathfinder": [("last", 0.3, 0.9445), ("aire", 0.8, 0.9515)],
    "s5_pathx": [("last", 0.3, 0.9795), ("aire", 0.7, 0.9841)],
    "s5_speech": [("last", 0.2, 0.9631), ("aire", 0.45, 0.9640)],
    "s5_smnist": [("last", 0.6, 0.9511), ("last", 0.7, 0.8917), ("last", 0.8, 0.6237), ("last", 0.9, 0.2767)],
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
    layers, width, size, blocks, activation, _ = SETTINGS[name]
    recipe = load_mapping(next(path for path in RECIPES if path.stem == name))
    paper = recipe["paper"]
    assert (paper["layers"], paper["d_model"], paper["ssm_size"], paper["blocks"]) == (layers, width, size, blocks)
    assert paper["stored_states"] == size // 2
    assert recipe["model"]["activation"] == activation
    assert recipe["model"]["bidirectional"] is (name != "s5_smnist")
    assert recipe["model"]["clip_eigs"] is (name == "s5_image")


@pytest.mark.parametrize("name", SETTINGS)
def test_a_published_setting_carries_the_published_numbers(name):
    plan = build_plan({}, next(path for path in RECIPES if path.stem == name))
    published = plan.published
    assert published.source.startswith(("AIRE-Prune, arXiv 2602.00534", "LAST, arXiv 2411.02824"))
    assert published.full == SETTINGS[name][5]
    found = {(one.method, float(one.ratio)): one.value for one in published.values}
    assert found.items() >= {(method, ratio): value for method, ratio, value in PUBLISHED[name]}.items()
    assert plan.ratio is None or any(one.ratio == plan.ratio for one in published.values if one.method == "last")
