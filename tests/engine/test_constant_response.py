"""Read-outs under the constraint of the constant response, against simulation and small moves inside the constraint."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.linalg

from lastcli.engine import balanced as module
from lastcli.engine.balanced import balance
from lastcli.engine.certificates import relative_dc_error, relative_h2_error
from lastcli.engine.constant_response import refit_keeping_constants
from lastcli.engine.reductions import refit_moved
from tests import oracles
from tests.systems import random_system, system_of


def constant(system, g=0):
    return oracles.impulse(system, g, 900).sum(axis=0)


def moved(system, states=3):
    """A reduction with poles of its own and a useless read-out."""
    reduced = balance(system.replace(feedthrough="dense")).reduce(states)
    new = reduced.system.replace(C=np.ones_like(reduced.system.C), D=system.D, feedthrough=system.feedthrough)
    return dataclasses.replace(reduced, system=new)


@pytest.mark.parametrize("feedthrough", ["none", "diagonal"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_constant_response_is_kept_exactly(feedthrough, directions, delay, groups):
    system = random_system(
        61, states=6, inputs=3, outputs=3, pairing=2, feedthrough=feedthrough, directions=directions, delay=delay,
        groups=groups, multi=groups > 1,
    )  # fmt: skip
    fitted = refit_keeping_constants(system, moved(system))
    assert fitted.changed == "all"
    assert fitted.bound is None
    for g in range(groups):
        np.testing.assert_allclose(constant(fitted.system, g), constant(system, g), rtol=1e-9, atol=1e-9)
    if feedthrough == "none":
        assert fitted.system.D is None
    else:
        np.testing.assert_array_equal(fitted.system.D * (1 - np.eye(3)), 0)


def test_with_too_few_states_it_is_weighed_against_the_h2_error():
    """One complex state has two numbers a row, and three inputs are three equations."""
    system = random_system(61, states=6, inputs=3, outputs=3, pairing=2, feedthrough="none")
    assert refit_keeping_constants(system, moved(system, 1)) is None
    found = balance(system, mode="perturbation").reduce(1)
    assert found.bound is None
    weight = module._constant_weight(system)
    np.testing.assert_allclose(refit_moved(system, found, constant=weight).system.C, found.system.C, rtol=1e-9)
    assert relative_dc_error(system, found.system) < relative_dc_error(system, refit_moved(system, found).system)


@pytest.mark.parametrize("feedthrough", ["none", "diagonal"])
def test_no_other_read_out_that_keeps_it_has_a_smaller_h2_error(feedthrough):
    system = random_system(62, states=6, inputs=3, outputs=3, pairing=2, feedthrough=feedthrough)
    fitted = refit_keeping_constants(system, moved(system)).system
    held = fitted.B[0] / (1 - fitted.poles[0])[:, None]
    at_best, rng = oracles.h2_of(oracles.difference(system, fitted), length=900), np.random.default_rng(0)
    for o in range(3):
        rows = [2 * held.real, -2 * held.imag] + ([np.eye(3)[o : o + 1]] if feedthrough == "diagonal" else [])
        free = scipy.linalg.null_space(np.concatenate(rows).T)
        assert free.shape[1] >= 3
        for _ in range(3):
            step = 0.1 * free @ rng.normal(size=free.shape[1])
            C, D = fitted.C.copy(), None if fitted.D is None else fitted.D.copy()
            C[0, 0, o] += step[:3] + 1j * step[3:6]
            if D is not None:
                D[0, o, o] += step[6]
            other = fitted.replace(C=C, D=D)
            np.testing.assert_allclose(constant(other), constant(system), rtol=1e-8, atol=1e-8)
            assert oracles.h2_of(oracles.difference(system, other), length=900) > at_best


def test_too_few_states_cannot_keep_it():
    system = random_system(63, states=6, inputs=5, outputs=5, pairing=2, feedthrough="none")
    assert refit_keeping_constants(system, moved(system, 2)) is None
    diagonal = random_system(63, states=6, inputs=5, outputs=5, pairing=2, feedthrough="diagonal")
    assert refit_keeping_constants(diagonal, moved(diagonal, 2)) is not None  # D is the fifth number of every row


def test_unstable_states_keep_what_they_say():
    system = random_system(64, states=6, inputs=2, outputs=2, pairing=2, feedthrough="diagonal")
    system.poles[0, 2] = 1.001 * np.exp(0.7j)
    reduced = balance(system, mode="perturbation").reduce(4)
    held = np.abs(reduced.system.poles[0]) >= 1
    assert held.sum() == 1
    np.testing.assert_array_equal(reduced.system.C[..., held], system.C[..., 2:3])
    fitted = refit_keeping_constants(system, reduced)
    np.testing.assert_array_equal(fitted.system.C[..., held], system.C[..., 2:3])
    assert relative_dc_error(system, fitted.system) < 1e-9


@pytest.mark.parametrize("kind", ["mimo", "delay", "multi", "multi-bidirectional", "tied", "real-poles", "oscillators"])
def test_balanced_dc_is_exact_where_D_holds_what_settles(kind):
    system = system_of(kind, seed=65)
    for states in range(1, system.states):
        reduced = balance(system, mode="perturbation").reduce(states)
        assert relative_dc_error(system, reduced.system) < 1e-9
        assert reduced.bound is not None


@pytest.mark.parametrize("feedthrough", ["none", "diagonal"])
@pytest.mark.parametrize("directions", [1, 2])
def test_balanced_dc_is_exact_elsewhere_where_that_is_not_dear(feedthrough, directions, monkeypatch):
    system = random_system(35, states=6, inputs=2, outputs=2, pairing=2, feedthrough=feedthrough, directions=directions)
    layer = balance(system, mode="perturbation")
    for states in (4, 5):
        reduced = layer.reduce(states)
        assert relative_dc_error(system, reduced.system) < 1e-9
        np.testing.assert_allclose(constant(reduced.system), constant(system), rtol=1e-8, atol=1e-8)
    dear = layer.reduce(1)
    assert relative_dc_error(system, dear.system) > 0.1
    monkeypatch.setattr(module, "_PRICE", np.inf)
    exact = layer.reduce(1)
    assert relative_dc_error(system, exact.system) < 1e-9
    assert relative_h2_error(system, exact.system) > 2 * relative_h2_error(system, dear.system)
