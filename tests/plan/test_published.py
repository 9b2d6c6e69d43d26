"""Numbers of a paper in a recipe: what is taken, what is refused, and that they come out as they went in."""

from __future__ import annotations

import pytest
import yaml

from lastcli.errors import InputError
from lastcli.plan import build_plan
from lastcli.plan.written import as_recipe

WHOLE = """\
published:
  source: a paper, table 1
  full: 0.99
  methods:
    last: {0.5: 0.91, 60%: 8e-1}
    aire: {0: 0.99}
"""


@pytest.fixture
def recipe(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return write


def test_ratios_and_values_are_read_as_everywhere(recipe):
    published = build_plan({}, recipe(WHOLE)).published
    assert (published.source, published.metric, published.full) == ("a paper, table 1", "accuracy", 0.99)
    found = [(one.method, float(one.ratio), one.value) for one in published.values]
    assert found == [("last", 0.5, 0.91), ("last", 0.6, 0.8), ("aire", 0.0, 0.99)]


def test_what_a_report_writes_as_its_recipe_gives_the_same_plan(recipe):
    plan = build_plan({}, recipe(WHOLE))
    assert build_plan({}, recipe(yaml.safe_dump(as_recipe(plan), sort_keys=False))) == plan


@pytest.mark.parametrize(
    "block",
    [
        "{full: 0.9}",
        "{source: x}",
        "{source: x, full: 98.3}",
        "{source: x, full: lots}",
        "{source: x, ful: 0.9}",
        "{source: x, methods: {lst: {0.5: 0.9}}}",
        "{source: x, methods: {last: {1.5: 0.9}}}",
        "{source: x, methods: {last: {half: 0.9}}}",
        "{source: x, methods: {last: {0.5: 90}}}",
        "{source: x, methods: {last: 0.9}}",
        "{source: x, methods: [last]}",
        "0.98",
    ],
)
def test_what_is_no_such_block_is_an_input_error(recipe, block):
    with pytest.raises(InputError, match="published"):
        build_plan({}, recipe(f"published: {block}\n"))


def test_an_error_may_be_above_one(recipe):
    published = build_plan({}, recipe("published: {source: x, metric: perplexity, full: 18.5}\n")).published
    assert (published.metric, published.full) == ("perplexity", 18.5)


def test_numbers_that_were_read_already_are_taken_as_they_are(recipe):
    published = build_plan({}, recipe(WHOLE)).published
    assert build_plan({"published": published}).published == published


def test_what_a_recipe_says_of_the_model_is_written_in_types_of_yaml(recipe):
    plan = build_plan({}, recipe("model: {family: s5, names: {A: x}}\n"))
    assert as_recipe(plan)["model"] == {"family": "s5", "names": {"A": "x"}}
