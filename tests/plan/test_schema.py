"""The schema against the reader of recipes: what one takes, the other does, key by key."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from lastcli.errors import LastError
from lastcli.families import FAMILIES, family_named
from lastcli.mappings import load_mapping
from lastcli.plan import METHODS, Plan, build_plan
from lastcli.plan.plan import ABOUT
from lastcli.verbs.recipes.schema import schema

SCHEMA = json.loads(json.dumps(schema()))
RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def fits(document):
    return Draft202012Validator(SCHEMA).is_valid(document)


def test_it_is_a_schema_of_the_draft_it_names():
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"].endswith("2020-12/schema")


def test_every_key_of_a_recipe_is_in_it_with_its_help():
    assert set(SCHEMA["properties"]) == {item.name for item in dataclasses.fields(Plan)} | set(ABOUT)
    for item in dataclasses.fields(Plan):
        assert SCHEMA["properties"][item.name]["description"] == item.metadata["help"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_of_the_project_fit_and_with_a_wrong_key_do_not(path):
    recipe = load_mapping(path)
    assert fits(recipe)
    assert not fits({**recipe, "metod": "last"})
    assert not fits({**recipe, "model": {**recipe["model"], "activaton": "gelu"}})


@pytest.mark.parametrize(
    "line",
    [
        *("method: last", "method: best", "method: lst", "method: [last]", "refit: calibrated+B", "refit: h3"),
        *("methods: last,aire", "methods: [last, obs]", "methods: last", "methods: last,lst", "methods: [lst]"),
        *("refits: calibrated+B, h2", "refits: none,h3"),
        *("ratio: 0.3", "ratio: 33%", "ratio: 1.5", "ratio: -0.1", "ratio: x", "ratio: [0.3]"),
        *("ratios: 0:0.9:0.1", "ratios: [0, 0.3, 60%]", "ratios: 0.5", "ratios: [2]"),
        *("states: 5", "states: '5'", "states: 0", "states: 2.5", "states: many", "states: [5]", "states:"),
        *("max_drop: 1e-2", "max_drop: 0.01", "max_drop: -1", "max_drop: little"),
        *("allow_unstable: true", "allow_unstable: yes", "allow_unstable: 1", "allow_unstable: maybe"),
        *("layout: padded", "layout: loose", "outputs: odds", "compat: reference", "compat: paper"),
        *("data: x.npz", "data: [x.npz]", "limit: 200", "limit: 10:20", "model: zoh", "model: {}", "model:"),
        *("title: x", "note:", "paper: {layers: 4}", "metod: last", "seed: -1", "batch_size: 0", "min_states: 0"),
        "published: {source: x, methods: {last: {0.5: 0.9, 33%: 0.9}}}",
        *("published: {methods: {last: {0.5: 0.9}}}", "published: {source: x, methods: {lst: {0.5: 0.9}}}"),
        *("published: {source: x, methods: {last: {half: 0.9}}}", "published: {source: x, fll: 1}"),
    ],
)
def test_it_takes_what_the_reader_takes(tmp_path, line):
    path = tmp_path / "recipe.yaml"
    more = {"method: best": "max_drop: 0.01\n", "outputs: odds": "forward: a:b\n"}.get(line, "")
    path.write_text(f"{line}\n{more}")
    try:
        build_plan({}, path)
        taken = True
    except LastError:
        taken = False
    assert fits(load_mapping(path)) == taken


@pytest.mark.parametrize("name", FAMILIES)
def test_it_knows_the_options_of_every_family_and_their_defaults_fit(name):
    options = family_named(name).options
    assert fits({"model": {"family": name} | {option.key: option.default for option in options}})
    for option in options:
        assert option.choices == () or not fits({"model": {"family": name, option.key: "no such choice"}})
    assert not fits({"model": {"family": name, "no_such_option": 1}})


def test_a_map_stands_beside_the_options():
    assert fits({"model": {"family": "s4d", "layers": ["a", "b.*"], "names": {"C": "C_real"}, "axes": {"C": [1, 0]}}})
    assert not fits({"model": {"family": "s9"}})
    assert len(METHODS) > 5
