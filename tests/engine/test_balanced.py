"""Balanced reductions against their error bound on a frequency grid and a dense textbook implementation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.linalg

from lastcli.engine import balanced as balanced_module
from lastcli.engine import rediagonalise
from lastcli.engine.balanced import balance, reduce_balanced
from lastcli.engine.certificates import certify
from lastcli.engine.norms import h2_norm, hankel_singular_values
from lastcli.engine.rediagonalise import Projection, diagonalise
from lastcli.engine.reductions import refit_moved
from lastcli.engine.system import Reduction
from lastcli.errors import UnsupportedModelError, UsageError
from tests import oracles
from tests.systems import random_system, system_of

pytestmark = pytest.mark.filterwarnings("ignore:Matrix is singular")

FORWARD = ["mimo", "paired", "delay", "multi", "tied", "oscillators", "real-poles"]


def textbook_truncation(system, group, order):
    """(A, B, C) of balanced truncation from dense Lyapunov solves and Cholesky-like roots."""
    A, B, C, _ = oracles.dense(system.replace(delay=1), group)
    reach = scipy.linalg.sqrtm(scipy.linalg.solve_discrete_lyapunov(A, B @ B.T)).real
    see = scipy.linalg.sqrtm(scipy.linalg.solve_discrete_lyapunov(A.T, C.T @ C)).real
    U, s, Vt = np.linalg.svd(see @ reach)
    root = np.sqrt(s[:order])
    into, onto = reach @ Vt[:order].T / root, (see @ U[:, :order] / root).T
    return onto @ A @ into, onto @ B, C @ into


def error_peak(system, reduced):
    error = oracles.difference(system, reduced)
    return np.array([oracles.h_infinity_of(error, g, 1001) for g in range(system.groups)])


@pytest.mark.parametrize("kind", FORWARD)
@pytest.mark.parametrize("mode", ["truncation", "perturbation"])
def test_error_stays_within_the_bound(kind, mode):
    system = system_of(kind, seed=31)
    if mode == "perturbation" and kind in ("paired", "oscillators"):
        system = system.replace(feedthrough="dense")
    balanced = balance(system, mode=mode)
    for states in range(1, system.states):
        reduction = balanced.reduce(states)
        reduced = reduction.system
        assert reduced.states == states
        assert reduction.kept.shape == (system.sets, states)
        assert np.abs(reduced.poles).max() < 1
        # what the bound sums over: everything beyond the order that could be stored
        order = [_order(reduced, g) for g in range(system.groups)]
        sigma = balanced.singular_values
        bound = [2 * sigma[g % system.sets, order[g] :].sum() for g in range(system.groups)]
        assert (error_peak(system, reduced) <= np.array(bound) * (1 + 1e-6) + 1e-7 * sigma.max()).all()
        assert reduction.bound == pytest.approx(max(bound), rel=1e-9, abs=1e-9 * sigma.max())
        assert certify(system, reduction).hinf_error_bound == reduction.bound


def _order(system, group):
    """Order of the real system behind one group: two for a complex pole, one for a real one, none if idle."""
    used = np.abs(system.B[group]).max(axis=1) > 0
    real = np.abs(system.poles[group].imag) < 1e-12
    return int((np.where(real, 1, 2) * used).sum()) // system.modes


@pytest.mark.parametrize("kind", ["mimo", "paired", "multi", "real-poles"])
def test_truncation_is_that_of_the_textbook(kind):
    system = system_of(kind, seed=32)
    reduced = balance(system).reduce(3).system
    z = np.exp(1j * np.linspace(0, np.pi, 7))
    for g in range(system.groups):
        A, B, C = textbook_truncation(system, g, _order(reduced, g))
        own = oracles.transfer(reduced.replace(D=None), np.angle(z), g, 900)
        for value, response in zip(z, own):
            expected = value * C @ np.linalg.solve(value * np.eye(len(A)) - A, B)
            np.testing.assert_allclose(response, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("kind", "factor"), [("bidirectional", 2), ("multi-bidirectional", np.sqrt(2))])
def test_two_directions_stay_within_the_bound_of_the_stacked_read_outs(kind, factor):
    system = system_of(kind, seed=33)
    balanced = balance(system)
    for states in range(1, system.states):
        reduction = balanced.reduce(states)
        sigma = balanced.singular_values
        bound = max(2 * sigma[g, _order(reduction.system, g) :].sum() for g in range(system.sets))
        assert reduction.bound == pytest.approx(factor * bound)
        assert error_peak(system, reduction.system).max() <= reduction.bound


def test_with_several_inputs_two_directions_exceed_root_two_of_the_stack():
    """At one frequency: the forward scan hears v, the backward one its conjugate, and both are orthogonal."""
    v = np.array([1, 1j]) / np.sqrt(2)
    forward, backward = v.conj()[None], v[None]  # responses at ω, as forward scans
    assert np.linalg.norm(np.concatenate([forward, backward]), 2) == pytest.approx(1)
    assert np.linalg.norm(forward + backward.conj(), 2) == pytest.approx(2)


def test_a_refit_leaves_no_bound():
    system = system_of("paired", seed=45)
    truncated = balance(system).reduce(2)
    assert truncated.bound is not None
    assert refit_moved(system, truncated).bound is None
    settled = balance(system, mode="perturbation").reduce(2)  # its D is diagonal, so that its C is fitted
    assert settled.bound is None
    assert certify(system, settled).hinf_error_bound is None


@pytest.mark.parametrize("kind", ["mimo", "delay", "multi", "multi-bidirectional", "tied"])
def test_perturbation_keeps_the_response_to_constant_inputs(kind):
    system = system_of(kind, seed=34)
    reduced = balance(system, mode="perturbation").reduce(2).system
    truncated = balance(system).reduce(2).system
    for g in range(system.groups):
        zero = np.zeros(1)
        before, after = (oracles.transfer(s, zero, g, 900)[0] for s in (system, reduced))
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-8 * np.abs(before).max())
        assert np.abs(oracles.transfer(truncated, zero, g, 900)[0] - before).max() > 1e-4


@pytest.mark.parametrize("feedthrough", ["none", "diagonal"])
@pytest.mark.parametrize("directions", [1, 2])
def test_perturbation_without_room_in_D_minds_the_constant_response(feedthrough, directions):
    system = random_system(35, states=6, inputs=2, outputs=2, pairing=2, feedthrough=feedthrough, directions=directions)
    reduction = balance(system, mode="perturbation").reduce(3)
    reduced = reduction.system
    if feedthrough == "none":
        assert reduced.D is None
    else:
        np.testing.assert_array_equal(reduced.D * (1 - np.eye(2)), 0)
    zero = np.zeros(1)
    careless = refit_moved(system, reduction).system
    before, after, without = (oracles.transfer(s, zero, 0, 900)[0] for s in (system, reduced, careless))
    assert np.linalg.norm(after - before) < 0.8 * np.linalg.norm(without - before)
    held = refit_moved(system, reduction, constant=1e6).system
    assert np.linalg.norm(oracles.transfer(held, zero, 0, 900)[0] - before) < 1e-3 * np.linalg.norm(before)


@pytest.mark.parametrize("pairing", [1, 2])
def test_real_poles_are_stored_undoubled(pairing):
    system = random_system(36, states=5, inputs=2, outputs=2, pairing=pairing, real_poles=5)
    reduced = balance(system).reduce(4).system
    for part in (reduced.poles, reduced.B, reduced.C):
        assert np.abs(part.imag).max() == 0
    np.testing.assert_allclose(hankel_singular_values(system)[0, :4], hankel_singular_values(reduced)[0, :4], rtol=0.05)
    assert error_peak(system, reduced)[0] <= 2 * hankel_singular_values(system)[0, 4:].sum() * (1 + 1e-6)


def test_a_full_spectrum_needs_half_its_states():
    half = random_system(37, states=3, inputs=2, outputs=2)
    full = half.replace(
        poles=np.concatenate([half.poles, half.poles.conj()], axis=1),
        B=np.concatenate([half.B, half.B.conj()], axis=1),
        C=np.concatenate([half.C, half.C.conj()], axis=3),
    )
    balanced = balance(full)
    assert balanced.projections[0].rank == 6
    reduced = balanced.reduce(3).system
    assert error_peak(full, reduced)[0] < 1e-6
    # empty slots are inert
    padded = balanced.reduce(5).system
    assert (np.abs(padded.B[0, 3:]) == 0).all()
    assert (np.abs(padded.C[..., 3:]) == 0).all()
    assert error_peak(full, padded)[0] < 1e-6


def test_all_states_is_the_layer_itself():
    system = system_of("multi")
    reduction = balance(system).reduce(system.states)
    assert reduction.changed == "none"
    assert reduction.system is system


def test_unstable_states_stay_as_they_are():
    system = random_system(38, states=5, inputs=2, outputs=2)
    system.poles[0, 3] = 1.01 * np.exp(0.5j)
    balanced = balance(system)
    assert np.isinf(balanced.scores()[0, 0])
    reduced = balanced.reduce(3).system
    assert reduced.poles[0, 0] == system.poles[0, 3]
    stable = [0, 1, 2, 4]
    rest = system.replace(poles=system.poles[:, stable], B=system.B[:, stable], C=system.C[..., stable])
    small = reduced.replace(poles=reduced.poles[:, 1:], B=reduced.B[:, 1:], C=reduced.C[..., 1:])
    bound = 2 * hankel_singular_values(rest)[0, _order(small, 0) :].sum()
    assert error_peak(rest, small)[0] <= bound * (1 + 1e-6)


def test_more_unstable_states_than_may_stay_are_refused():
    system = random_system(38, states=5, inputs=2, outputs=2)
    system.poles[0, [0, 3]] = 1.01j
    balanced = balance(system, "wild")
    assert balanced.reduce(2).kept.shape == (1, 2)
    with pytest.raises(UsageError, match="Layer wild has more unstable states than the 1 that may stay"):
        balanced.reduce(1)


def near_defective(gap):
    """A double pole but for `gap`: two residues of its inverse that cancel."""
    system = random_system(39, states=3, inputs=1, outputs=1, real_poles=3)
    system.poles[0] = [0.8, 0.8 + gap, 0.3]
    system.B[0] = 1
    system.C[0, 0, 0] = [1 / gap, -1 / gap, 0]
    return system


def test_orders_with_poles_that_rounding_cannot_tell_apart_are_passed_over():
    # exact arithmetic gives a condition of 6e7; rounding makes it anything from 5e4, depending on the processor
    assert _order(balance(near_defective(1e-7)).reduce(2).system, 0) == 1


def test_ill_conditioned_orders_are_passed_over(monkeypatch):
    system = near_defective(1e-4)
    assert _order(balance(system).reduce(2).system, 0) == 2
    monkeypatch.setattr("lastcli.engine.balanced.CONDITION_LIMIT", 1e3)
    reduced = balance(system).reduce(2).system
    assert (np.linalg.norm(reduced.B[0], axis=1) * np.abs(reduced.C[0, 0, 0])).max() < 1e3
    assert _order(reduced, 0) == 1


def disturbed(array, rng, size):
    """The array with every entry changed by about `size` relative to the largest."""
    return array + size * np.abs(array).max() * rng.normal(size=array.shape)


@pytest.mark.parametrize("gap", [1e-7, 1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("states", [1, 2])
def test_the_order_does_not_hang_on_the_last_bits(gap, states):
    system = near_defective(gap)
    expected = _order(balance(system).reduce(states).system, 0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        # the last bits of the layer: they decide how its Gramians are rounded
        layer = balance(system.replace(B=system.B * (1 + 1e-15 * rng.normal(size=system.B.shape))))
        assert _order(layer.reduce(states).system, 0) == expected
        projection = layer.projections[0]
        layer = dataclasses.replace(
            layer, projections=(dataclasses.replace(projection, A=disturbed(projection.A, rng, 1e-13)),)
        )
        assert _order(layer.reduce(states).system, 0) == expected


@pytest.mark.parametrize("kind", FORWARD)
def test_orders_of_ordinary_layers_do_not_hang_on_the_last_bits(kind):
    system = system_of(kind, seed=31)
    balanced = balance(system)
    rng = np.random.default_rng(0)
    for states in range(1, system.states):
        expected = [_order(balanced.reduce(states).system, g) for g in range(system.groups)]
        for _ in range(3):
            projections = tuple(dataclasses.replace(p, A=disturbed(p.A, rng, 1e-13)) for p in balanced.projections)
            reduced = dataclasses.replace(balanced, projections=projections).reduce(states).system
            assert [_order(reduced, g) for g in range(system.groups)] == expected


def projection_of(A):
    """A balanced system with one input and one output, given by its A."""
    ones = np.ones((len(A), 1))
    return Projection(A=A, B=ones, C=ones.T, D=np.zeros((1, 1)), causal=False, rounding=np.full(len(A), 1e-12))


@pytest.mark.parametrize("split", [0.0, 1e-13, -1e-13])
def test_a_pair_that_may_be_two_real_poles_takes_two_slots(split):
    A = np.array([[0.8, 0.3, 0], [split, 0.8, 0], [0, 0, 0.2]])
    modal = diagonalise(projection_of(A), 3, "truncation")
    assert modal.slots == 3
    assert not modal.resolved


def test_poles_without_eigenvectors_of_their_own_are_never_resolved():
    modal = diagonalise(projection_of(np.array([[0.8, 1e3], [0, 0.8]])), 2, "truncation")
    assert modal.condition == np.inf
    assert not modal.resolved
    assert modal.slots == 2


def test_a_pole_at_zero_cannot_be_read_before_the_update():
    """C (A - 0)⁻¹ does not exist: no read-out after the update says what one before it said."""
    modal = diagonalise(dataclasses.replace(projection_of(np.diag([0.5, 0.0])), causal=True), 2, "truncation")
    assert modal.condition == np.inf
    assert modal.resolved
    kept = diagonalise(dataclasses.replace(projection_of(np.diag([0.5, 0.1])), causal=True), 2, "truncation")
    # the impulse response from its second step on, and C A⁻¹ B taken off the first
    seen = [(kept.C @ np.diag(kept.poles**k) @ kept.B).real.item() for k in (0, 1, 2)]
    np.testing.assert_allclose(seen, [0.5**k / 0.5 + 0.1**k / 0.1 for k in (0, 1, 2)])
    np.testing.assert_allclose(kept.D, -(1 / 0.5 + 1 / 0.1))


def test_equal_poles_that_are_not_sensitive_are_kept():
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    block = 0.9 * np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    modal = diagonalise(projection_of(turn @ np.kron(np.eye(2), block) @ turn.T), 4, "truncation")
    assert modal.resolved
    assert modal.slots == 2


def test_an_order_that_is_not_stable_is_passed_over():
    system = random_system(39, states=6, inputs=1, outputs=1)
    layer = dataclasses.replace(balance(system), projections=(projection_of(np.diag([0.5, 0.4, 1.2])),))
    reduced = layer.reduce(3).system
    np.testing.assert_allclose(np.sort(reduced.poles[0][np.abs(reduced.B[0, :, 0]) > 0].real), [0.4, 0.5])


@pytest.mark.parametrize("kind", ["mimo", "multi", "real-poles"])
def test_the_score_of_a_slot_is_the_relative_bound_without_it(kind):
    system = system_of(kind, seed=44)
    sigma = np.sum([oracles.hankel_of(system, g) for g in range(system.groups)], axis=0)
    expected = [2 * sigma[2 * slot :].sum() / (2 * sigma.sum()) for slot in range(system.states)]
    for row in balance(system).scores():
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-7)


def test_layers_of_very_different_gain_compete_as_equals():
    layers = [random_system(seed, states=6, inputs=2, outputs=2) for seed in (41, 42)]
    alike = [r.kept.shape[1] for r in reduce_balanced([balance(layer) for layer in layers], ratio=0.5)]
    loud = [layers[0], layers[1].replace(C=1e6 * layers[1].C)]
    assert [r.kept.shape[1] for r in reduce_balanced([balance(layer) for layer in loud], ratio=0.5)] == alike
    assert min(alike) > 1


def test_where_no_order_is_sound_the_numbers_are_given(monkeypatch):
    monkeypatch.setattr("lastcli.engine.balanced.CONDITION_LIMIT", 1.0)
    system = random_system(39, states=6, inputs=2, outputs=2)
    with pytest.raises(UnsupportedModelError, match=r"Layer deep: .*condition of its eigenvectors is \d.* at order 10"):
        balance(system, "deep").reduce(5)


def test_layers_that_cannot_hold_balanced_states_are_refused():
    system = random_system(40, inputs=1, outputs=1, groups=3, multi=True, sets=1)
    with pytest.raises(UnsupportedModelError, match="poles of their own"):
        balance(system, "tied")
    oscillators = system_of("oscillators").replace(shared_readout=True)
    with pytest.raises(UnsupportedModelError, match=r"Layer linoss: .*keeps the poles"):
        balance(oscillators, "linoss")
    for change in ({"fixed_poles": True}, {"real_readout": True}):
        with pytest.raises(UnsupportedModelError, match=r"Layer fixed: .*cannot hold"):
            balance(system_of("bidirectional-real").replace(**change), "fixed")
    with pytest.raises(UsageError, match="truncation"):
        balance(system_of("mimo"), mode="half")


@pytest.mark.parametrize("layout", ["ragged", "uniform"])
def test_orders_follow_the_hankel_singular_values_of_all_layers(layout):
    easy = random_system(41, states=6, inputs=2, outputs=2)
    easy.C[..., 3:] *= 1e-6
    hard = random_system(42, states=6, inputs=2, outputs=2, radius=(0.9, 0.95))
    reductions = reduce_balanced([balance(easy), balance(hard)], ratio=0.25, layout=layout)
    counts = [reduction.kept.shape[1] for reduction in reductions]
    if layout == "uniform":
        assert counts == [4, 4]
    else:
        assert sum(counts) == 9
        assert counts[0] < counts[1]


@pytest.mark.parametrize("kind", ["paired", "bidirectional", "delay", "multi", "multi-bidirectional", "oscillators"])
def test_refitting_moved_poles_lowers_the_true_error(kind):
    system = system_of(kind, seed=43)
    reduction = balance(system).reduce(2)
    fitted = refit_moved(system, reduction)
    before, after = certify(system, reduction), certify(system, fitted)
    assert fitted.changed == "all"
    assert after.h2_error <= before.h2_error * (1 + 1e-9)
    # a stationary point: no small change of C helps
    rng = np.random.default_rng(0)
    for _ in range(3):
        step = rng.normal(size=fitted.system.C.shape) + 1j * rng.normal(size=fitted.system.C.shape)
        moved = fitted.system.replace(C=fitted.system.C + 1e-3 * step)
        assert certify(system, Reduction(fitted.kept, moved, "all")).h2_error > after.h2_error


def test_the_rounding_of_an_order_is_that_of_its_own_columns():
    """What is cut off does not count: the Frobenius norms of the first k columns, one after another."""
    columns = np.random.default_rng(0).normal(size=(5, 3)) * [1.0, 1e3, 1e-3]
    expected = [np.linalg.norm(columns[:, :k]) for k in (1, 2, 3)]
    np.testing.assert_allclose(rediagonalise._leading_norms(columns), expected, rtol=1e-12)


def test_states_that_nothing_drives_or_reads_keep_their_scale():
    """Balanced parts have |b| = |c|; where one of the two is zero there is no scale to balance."""
    poles = np.diag([0.9, 0.5, 0.3])
    B = np.array([[2.0], [0.0], [4.0]])
    C = np.array([[8.0, 3.0, 0.0]])
    projection = Projection(A=poles, B=B, C=C, D=np.zeros((1, 1)), causal=False, rounding=np.full(3, 1e-12))
    found = diagonalise(projection, 3, "truncation")
    at = {round(float(pole.real), 6): index for index, pole in enumerate(found.poles)}
    b, c = np.abs(found.B[:, 0]), np.abs(found.C[0])
    assert b[at[0.9]] == pytest.approx(c[at[0.9]]) == pytest.approx(4.0)
    assert (b[at[0.5]], c[at[0.5]]) == (0, pytest.approx(3.0))
    assert (b[at[0.3]], c[at[0.3]]) == (pytest.approx(4.0), 0)


def test_the_constant_response_weighs_as_much_as_white_noise():
    system = system_of("multi", 5)
    weight = balanced_module._constant_weight(system)
    for g in range(system.groups):
        response = oracles.transfer(system, np.zeros(1), g, 900)[0]
        assert weight[g] * (np.abs(response) ** 2).sum() == pytest.approx(h2_norm(system)[g] ** 2, rel=1e-6)


def test_a_layer_that_says_nothing_scores_zero():
    system = system_of("mimo", 6)
    silent = system.replace(C=np.zeros_like(system.C))
    np.testing.assert_array_equal(balance(silent).scores(), np.zeros((silent.sets, silent.states)))
