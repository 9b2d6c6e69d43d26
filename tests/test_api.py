"""The verbs in Python: what they take, what they refuse, and a criterion of one's own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import lastcli
from lastcli import api
from lastcli.errors import UsageError
from lastcli.plan import Plan, options

VERBS = ("inspect", "score", "prune", "sweep", "evaluate", "verify", "convert", "bench")


def test_a_misspelled_keyword_is_a_usage_error_that_names_the_right_one(tiny):
    with pytest.raises(UsageError, match=r"score\(\) has no option 'metod'.*'method'"):
        lastcli.score(tiny, metod="aire")


def test_a_keyword_of_another_verb_is_refused_not_ignored(tiny):
    with pytest.raises(UsageError, match=r"score\(\) has no option 'ratio'"):
        lastcli.score(tiny, ratio=0.5)


def test_the_bundled_model_opens_by_its_name():
    with lastcli.open("bundled") as model:
        assert (model.label, model.states) == ("bundled", 128)


def test_an_open_checkpoint_goes_into_every_verb_and_stays_open(tiny, data):
    with lastcli.open(tiny) as model:
        small = tiny.with_name("small.safetensors")
        assert lastcli.prune(model, small, ratio=0.5).states_after == 5
        with lastcli.open(small) as pruned:
            assert lastcli.verify(model, pruned).ok
            assert lastcli.bench(model, pruned, length=8, repeats=2).pruned.states == 5
        assert lastcli.evaluate(model, data=data).n == 40
        assert lastcli.convert(model, tiny.with_name("again.msgpack")).tensors == len(model.reader.tensors)
        assert model.read("params/decoder/bias" if "params/decoder/bias" in model.reader.tensors else next(
            name for name in model.reader.tensors if name.endswith("decoder/bias"))).size  # fmt: skip


def test_a_description_goes_with_any_verb_and_must_be_a_mapping(tiny):
    described = lastcli.score(tiny, model={"step_rescale": 0.5}).layers[0].max_abs_pole
    assert described != lastcli.score(tiny).layers[0].max_abs_pole
    with pytest.raises(UsageError, match="first argument"):
        lastcli.score(model=str(tiny))


def test_a_criterion_of_ones_own_ranks_as_the_built_in_one_it_repeats(tiny, data):
    def impulse(system):
        """Energy of the impulse response."""
        squares = (np.abs(system.B) ** 2).sum(2) * (np.abs(system.C) ** 2).sum((1, 2))
        return squares / (1 - np.abs(system.poles) ** 2)

    own, built_in = lastcli.score(tiny, method=impulse), lastcli.score(tiny, method="aire")
    assert (own.method, own.criterion) == ("impulse", "impulse")
    for mine, theirs in zip(own.layers, built_in.layers):
        np.testing.assert_allclose(mine.energy, theirs.energy, rtol=1e-12)
    found = lastcli.sweep(tiny, methods=[impulse, "aire"], ratios="0.4", data=data)
    assert [row.method for row in found.rows] == ["impulse", "aire"]
    assert found.rows[0].layers == found.rows[1].layers
    fewest = lastcli.Method("even", "as impulse, evenly", "here", criterion=impulse, allocation="uniform")
    pruned = lastcli.prune(tiny, tiny.with_name("even.safetensors"), method=fewest, ratio=0.4)
    assert pruned.method == "even"
    assert lastcli.verify(tiny, tiny.with_name("even.safetensors")).ok


@pytest.mark.parametrize(
    ("result", "words"),
    [(lambda s: np.ones(3), "shape"), (lambda s: -np.ones((1, s.states)), "negative"), (lambda s: "x", "numbers")],
)
def test_a_criterion_that_gives_no_energies_is_refused(tiny, result, words):
    def strange(system):
        return result(system)

    with pytest.raises(UsageError, match=f"strange.*{words}"):
        lastcli.score(tiny, method=strange)


@pytest.mark.parametrize("verb", VERBS)
def test_the_typed_keywords_of_a_verb_are_fields_of_the_plan(verb):
    arguments = getattr(api, f"{verb.capitalize()}Arguments")
    known = {field.name for field in dataclasses.fields(Plan)} | {"model", "model_config", "recipe", "progress"}
    assert set(options.fields_of(arguments)) <= known
    assert getattr(api, verb).__annotations__["given"] == f"Unpack[{arguments.__name__}]"
