import dataclasses
from decimal import Decimal

import pytest

from lastcli import demo
from lastcli.errors import InputError, UsageError
from lastcli.plan import Plan, build_plan
from lastcli.verbs.shared.sources import choose_data


def recipe(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_flag_beats_the_recipe_and_the_recipe_the_default(tmp_path):
    path = recipe(tmp_path, "method: aire\nmin_states: 3\nratio: 40%\n")
    plan = build_plan({"method": "lamp"}, path)
    assert (plan.method.name, plan.min_states, plan.ratio, plan.layout) == ("lamp", 3, Decimal("0.4"), None)


def test_paths_in_a_recipe_are_relative_to_it(tmp_path):
    plan = build_plan({}, recipe(tmp_path, "checkpoint: m.safetensors\ndata: bundled:test\n"))
    assert plan.checkpoint == str(tmp_path / "m.safetensors")
    assert plan.data == "bundled:test"


def test_an_unknown_key_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(InputError, match=r"'metod'.*'method'"):
        build_plan({}, recipe(tmp_path, "metod: last\n"))


@pytest.mark.parametrize(
    "line", ["ratio: 1.5", "method: lst", "min_states: many", "ratios: 0:2:1", "model: zoh", "refits: h3", "ratio: x"]
)
def test_a_wrong_value_in_a_recipe_is_an_input_error(tmp_path, line):
    with pytest.raises(InputError, match=line.split(":")[0]):
        build_plan({}, recipe(tmp_path, line + "\n"))


@pytest.mark.parametrize(
    "flags",
    [
        {"ratio": "2"},
        {"method": "lst"},
        {"ratio": "0.3", "states": 5},
        {"states": 0},
        {"min_states": -1},
        {"significance": 1.5},
        {"max_drop": -0.1},
        {"batch_size": 0},
        {"refits": "h2,h3"},
    ],
)
def test_a_wrong_flag_is_a_usage_error(flags):
    with pytest.raises(UsageError):
        build_plan(flags)


def test_a_goal_on_the_command_line_replaces_the_recipes_goal(tmp_path):
    plan = build_plan({"states": 7}, recipe(tmp_path, "ratio: 0.5\n"))
    assert (plan.states, plan.ratio) == (7, None)


@pytest.mark.parametrize(
    ("flag", "value", "plural"), [("method", "obs", "methods"), ("refit", "h2", "refits"), ("ratio", "0.3", "ratios")]
)
def test_one_on_the_command_line_replaces_the_recipes_several(flag, value, plural, tmp_path):
    lines = "methods: [last, aire]\nrefits: [none, h2]\nratios: 0:0.5:0.1\n"
    plan = build_plan({flag: value}, recipe(tmp_path, lines))
    assert getattr(plan, plural) in (None, ())
    others = {"methods", "refits", "ratios"} - {plural}
    assert all(getattr(plan, other) for other in others)


def test_a_file_whose_name_begins_like_the_demos_is_a_file(tmp_path):
    plan = build_plan({}, recipe(tmp_path, "checkpoint: bundled_models/a.npz\ndata: bundled\n"))
    assert (plan.checkpoint, plan.data) == (str(tmp_path / "bundled_models/a.npz"), "bundled")


def test_every_option_says_what_it_does():
    assert all(item.metadata["help"] for item in dataclasses.fields(Plan))


def test_several_methods_are_named_once_each_and_keep_their_order():
    plan = build_plan({"ratios": "0:0.2:0.1", "methods": "last,obs,last", "refits": ["none", "h2"]})
    assert [float(ratio) for ratio in plan.ratios] == [0.0, 0.1, 0.2]
    assert [method.name for method in plan.methods] == ["last", "obs"]
    assert [refit.name for refit in plan.refits] == ["none", "h2"]


def test_an_option_that_does_not_exist_is_a_usage_error_with_a_suggestion():
    with pytest.raises(UsageError, match=r"'rati'.*'ratio'"):
        build_plan({"rati": 0.5})


def test_the_demo_has_three_parts_of_data():
    assert all(demo.split(part).is_file() for part in demo.PARTS)
    with pytest.raises(ValueError, match="no part 'train'; it has test, calibration, validation"):
        demo.split("train")
    with pytest.raises(UsageError, match="--data bundled:train: the bundled splits are test, validation, calibration"):
        choose_data(build_plan({"data": "bundled:train"}), bundled=True)
