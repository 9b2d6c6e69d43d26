"""Certificates against the response of an explicitly built error system."""

from __future__ import annotations

import time

import numpy as np
import pytest

from lastcli.engine.certificates import a_priori_bound, certify, error_system, relative_h2_error
from lastcli.engine.system import DiagonalSystem, Reduction
from tests import oracles
from tests.systems import KINDS, random_system, system_of


def keep(system: DiagonalSystem, count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([np.sort(rng.permutation(system.states)[:count]) for _ in range(system.sets)])


def gather(system: DiagonalSystem, kept: np.ndarray) -> DiagonalSystem:
    """Plain truncation, one group at a time."""
    poles, B, C = [], [], []
    for g in range(system.groups):
        own = [i * system.modes + q for i in kept[g % system.sets] for q in range(system.modes)]
        poles.append(system.poles[g, own])
        B.append(system.B[g, own])
        C.append(system.C[g][:, :, own])
    return system.replace(poles=np.stack(poles), B=np.stack(B), C=np.stack(C))


def true_errors(system, reduced):
    error = oracles.difference(system, reduced)
    hinf = max(oracles.h_infinity_of(error, g) for g in range(system.groups))
    h2 = np.linalg.norm([oracles.h2_of(error, g, 900) for g in range(system.groups)])
    states = system.replace(D=None)
    return hinf, h2 / np.linalg.norm([oracles.h2_of(states, g, 900) for g in range(system.groups)])


def constant_response(system, g):
    """What a unit constant in each input ends in, by simulation; backward scans are read in the middle."""
    return oracles.impulse(system, g, 900).sum(axis=0)


@pytest.mark.parametrize("kind", KINDS)
def test_truncation_is_certified_exactly_and_within_its_bound(kind):
    system = system_of(kind, seed=21)
    kept = keep(system, 3)
    reduced = gather(system, kept)
    certificate = certify(system, Reduction(kept, reduced))
    hinf, h2 = true_errors(system, reduced)
    assert certificate.hinf_error == pytest.approx(hinf, rel=1e-4)
    assert certificate.hinf_error >= hinf * (1 - 1e-9)
    assert certificate.hinf_exact
    assert certificate.h2_error == pytest.approx(h2, rel=1e-8)
    assert certificate.hinf_error <= certificate.hinf_error_bound * (1 + 1e-12)


@pytest.mark.parametrize("kind", ["paired", "bidirectional", "multi", "oscillators"])
@pytest.mark.parametrize("changed", ["readout", "all"])
def test_changed_systems_are_certified_without_a_bound(kind, changed):
    system = system_of(kind, seed=22)
    kept = keep(system, 3)
    rng = np.random.default_rng(0)
    reduced = gather(system, kept)
    D = None if system.D is None else system.D + 0.1 * rng.normal(size=system.D.shape)
    reduced = reduced.replace(C=reduced.C * rng.normal(1, 0.2, reduced.C.shape), D=D)
    if changed == "all":
        reduced = reduced.replace(poles=reduced.poles * 0.9, B=reduced.B * 1.1)
    certificate = certify(system, Reduction(kept, reduced, changed))
    hinf, h2 = true_errors(system, reduced)
    assert certificate.hinf_error_bound is None
    assert certificate.hinf_error == pytest.approx(hinf, rel=1e-4)
    assert certificate.h2_error == pytest.approx(h2, rel=1e-8)
    assert relative_h2_error(system, reduced) == pytest.approx(h2, rel=1e-8)


def test_the_bound_is_attained_by_a_single_state():
    system = random_system(3, states=2, radius=(0.5, 0.9))
    system.C[..., 0] = 0
    system.poles[0, 1] = 0.8
    system.B[0, 1], system.C[..., 1] = system.B[0, 1].real, system.C[..., 1].real
    kept = np.array([[0]])
    certificate = certify(system, Reduction(kept, gather(system, kept)))
    assert certificate.hinf_error == pytest.approx(certificate.hinf_error_bound, rel=1e-9)


def test_the_bound_adds_both_directions_and_takes_the_worst_group():
    system = system_of("multi-bidirectional", seed=26)
    kept = keep(system, 3)
    expected = []
    for g in range(system.groups):
        total = 0.0
        for i in set(range(system.states)) - set(kept[g]):
            read = sum(np.linalg.norm(system.C[g, d, :, i]) for d in (0, 1))
            total += system.pairing * read * np.linalg.norm(system.B[g, i]) / (1 - abs(system.poles[g, i]))
        expected.append(total)
    assert a_priori_bound(system, kept) == pytest.approx(max(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_for_constant_inputs_is_that_of_the_simulated_responses(kind):
    system = system_of(kind, seed=27)
    kept = keep(system, 3)
    reduced = gather(system, kept).replace(D=None if system.D is None else system.D * 1.3)
    error, whole = 0.0, 0.0
    for g in range(system.groups):
        error += (constant_response(oracles.difference(system, reduced), g) ** 2).sum()
        whole += (constant_response(system.replace(D=None), g) ** 2).sum()
    found = certify(system, Reduction(kept, reduced, "readout")).dc_error
    assert found == pytest.approx(np.sqrt(error / whole), rel=1e-8)


def test_a_layer_that_says_nothing_has_no_error_of_its_own():
    system = system_of("mimo", seed=28)
    silent = system.replace(C=np.zeros_like(system.C))
    kept = keep(silent, 2)
    certificate = certify(silent, Reduction(kept, gather(silent, kept)))
    assert (certificate.hinf_error_bound, certificate.hinf_error, certificate.h2_error) == (0, 0, 0)
    assert certificate.dc_error == 0
    other_D = gather(silent, kept).replace(D=silent.D + 1)
    certificate = certify(silent, Reduction(kept, other_D, "readout"))
    assert (certificate.h2_error, certificate.dc_error) == (np.inf, None)


def test_keeping_everything_is_no_error():
    system = system_of("multi")
    kept = keep(system, system.states)
    certificate = certify(system, Reduction(kept, gather(system, kept)))
    assert (certificate.hinf_error_bound, certificate.hinf_error, certificate.h2_error) == (0, 0, 0)


def test_errors_far_below_the_layer_are_resolved():
    system = system_of("paired", seed=23)
    system.C[..., 4] *= 1e-12
    kept = np.array([[0, 1, 2, 3]])
    certificate = certify(system, Reduction(kept, gather(system, kept)))
    alone = gather(system, np.array([[4]])).replace(D=None)
    assert certificate.hinf_error == pytest.approx(oracles.h_infinity_of(alone), rel=1e-4)
    h2 = oracles.h2_of(alone, length=900) / oracles.h2_of(system.replace(D=None), length=900)
    assert certificate.h2_error == pytest.approx(h2, rel=1e-8)


def test_an_unstable_state_may_stay_but_not_go():
    system = system_of("mimo", seed=24)
    system.poles[0, 1] = 1.01j
    kept = np.array([[1, 3]])
    certificate = certify(system, Reduction(kept, gather(system, kept)))
    assert np.isfinite(certificate.hinf_error)
    assert np.isfinite(certificate.hinf_error_bound)
    removed = gather(system, np.array([[0, 2, 4]])).replace(D=None)
    stable = gather(system, np.array([[0, 2, 3, 4]]))
    expected = oracles.h2_of(removed, length=900) / oracles.h2_of(stable.replace(D=None), length=900)
    assert certificate.h2_error == pytest.approx(expected, rel=1e-8)
    assert certificate.dc_error == pytest.approx(
        np.linalg.norm(constant_response(removed, 0)) / np.linalg.norm(constant_response(stable.replace(D=None), 0)),
        rel=1e-8,
    )
    refitted = gather(system, kept).replace(C=gather(system, kept).C * 1.1)
    unbounded = certify(system, Reduction(kept, refitted, "readout"))
    assert (unbounded.hinf_error, unbounded.h2_error, unbounded.dc_error) == (np.inf, np.inf, None)
    gone = certify(system, Reduction(np.array([[0, 3]]), gather(system, np.array([[0, 3]]))))
    assert (gone.hinf_error_bound, gone.hinf_error, gone.h2_error, gone.dc_error) == (np.inf, np.inf, np.inf, None)
    assert a_priori_bound(system, np.array([[0, 3]])) == np.inf


def test_pairing_may_differ():
    """A reduced layer in the full spectrum against an original that stores half of it."""
    system = system_of("paired", seed=25)
    full = system.replace(
        poles=np.concatenate([system.poles, system.poles.conj()], axis=1),
        B=np.concatenate([system.B, system.B.conj()], axis=1),
        C=np.concatenate([system.C, system.C.conj()], axis=3),
        pairing=1,
    )
    assert np.abs(oracles.impulse(error_system(system, full))).max() < 1e-12


def test_many_channels_take_seconds():
    system = random_system(1, states=32, inputs=1, outputs=1, groups=128, multi=True, pairing=2, radius=(0.5, 0.999))
    kept = keep(system, 8)
    start = time.perf_counter()
    certify(system, Reduction(kept, gather(system, kept)))
    assert time.perf_counter() - start < 20
