"""A masked model at a smaller width is the masked model, and runs so only where that pays."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from lastcli.engine.engines import engine_of
from lastcli.evaluation import widths
from lastcli.families import family_named
from tests.builders.mamba import language_model
from tests.families.rebuilding import config_of, systems_of
from tests.systems import system_of


def reduced(kind, kept):
    system = system_of(kind)
    return system, engine_of(system).truncate(system, np.array([kept] * system.sets))


@pytest.mark.parametrize("kind", ["mimo", "bidirectional", "delay", "oscillators"])
def test_the_response_does_not_depend_on_the_width(kind):
    system, reduction = reduced(kind, [1, 3])
    narrow = engine_of(system).embed(system, reduction, 3)
    whole = engine_of(system).embed(system, reduction)
    assert narrow.states == 3 < whole.states == system.states
    u = np.random.default_rng(0).normal(size=(2, 40, system.inputs))
    answers = [engine_of(system).output(one, u) for one in (narrow, whole)]
    np.testing.assert_allclose(*answers, rtol=0, atol=1e-12)


def test_widths_are_quarters_that_hold_what_is_kept():
    system, _ = reduced("mimo", [0])
    engine = engine_of(system)
    for kept in range(system.states + 1):
        reduction = engine.truncate(system, np.arange(kept)[None])
        (width,) = widths.widths([system], [reduction])
        part = -(-system.states // 4)
        assert kept <= width <= system.states
        assert width == system.states or width % part == 0
        assert width - kept < part or kept == 0


def test_a_long_split_runs_narrow_and_a_short_one_whole():
    system, reduction = reduced("mimo", [1])
    (short,) = widths.embedded([system], [reduction], 100)
    (long,) = widths.embedded([system], [reduction], 10**12)
    assert short.states == system.states
    assert long.states == -(-system.states // 4)


def test_convolutions_and_accelerators_stay_whole(monkeypatch):
    system, reduction = reduced("multi", [1])
    assert widths.embedded([system], [reduction], 10**12)[0].states == system.states
    system, reduction = reduced("mimo", [1])
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert widths.embedded([system], [reduction], 10**12)[0].states == system.states


@pytest.mark.parametrize("version", [1, 2])
def test_a_selective_layer_at_a_smaller_width(version):
    arrays = language_model(np.random.default_rng(version), version, layers=1)
    family = family_named("mamba" if version == 1 else "mamba2")
    (system,) = systems_of(family, arrays, config_of(family, arrays, **({} if version == 1 else {"groups": 2})))
    engine = engine_of(system)
    reduction = engine.truncate(system, np.array([[1, 3]] * system.sets))
    u = np.random.default_rng(0).normal(size=(2, 20, 6))
    narrow = engine.embed(system, reduction, 3)
    assert narrow.states == 3
    wanted = engine.output(engine.embed(system, reduction), u)
    np.testing.assert_allclose(engine.output(narrow, u), wanted, rtol=0, atol=1e-12)
