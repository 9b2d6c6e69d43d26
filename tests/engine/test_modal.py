"""Products in real coordinates against the sum over the poles and their conjugates, term by term."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lastcli.engine import modal as modal_module
from lastcli.engine.climbing import climbed_peak, reduced_peak
from lastcli.engine.modal import Modal
from lastcli.engine.system import DiagonalSystem, feedthrough_of
from tests.systems import random_system

OMEGA = np.array([0.0, 0.3, 1.7, np.pi])
KINDS = list(itertools.product([1, 2], [0, 1], [1, 2], ["none", "diagonal", "dense"]))


def drawn(kind: tuple[int, int, int, str], **sizes: int) -> DiagonalSystem:
    directions, delay, pairing, feedthrough = kind
    sizes = {"states": 5, "inputs": 4, "outputs": 4} | sizes
    return random_system(
        3, **sizes, directions=directions, delay=delay, pairing=pairing, feedthrough=feedthrough, real_poles=1
    )


def summed(system: DiagonalSystem, omega: float) -> np.ndarray:
    """D + s/2·Σ_d Σ_j (c_j b_jᵀ f(λ_j) + c_j* b_jᴴ f(λ_j*)), as docs and `DiagonalSystem` write it."""
    total = np.asarray(feedthrough_of(system))[0].astype(complex)
    for d in range(system.directions):
        q = np.exp((-1j, 1j)[d] * omega)
        for pole, b, c in zip(system.poles[0], system.B[0], system.C[0, d].T, strict=True):
            for value, drive, read in ((pole, b, c), (pole.conj(), b.conj(), c.conj())):
                total += system.pairing / 2 * q**system.delay / (1 - value * q) * np.outer(read, drive)
    return total


@pytest.mark.parametrize("small", [0, 2**13])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_response_is_the_sum_over_the_poles(kind, small, monkeypatch):
    """In real coordinates, and in the complex numbers that small responses are computed in."""
    monkeypatch.setattr(modal_module, "_SMALL", small)
    system = drawn(kind)
    expected = [summed(system, omega) for omega in OMEGA]
    np.testing.assert_allclose(Modal.of(system, 0).response(OMEGA), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_products_are_those_with_the_response_and_its_adjoint(kind):
    system, rng = drawn(kind, outputs=4), np.random.default_rng(0)
    modal = Modal.of(system, 0)
    block = rng.normal(size=(4, len(OMEGA), 2)) + 1j * rng.normal(size=(4, len(OMEGA), 2))
    matrices, turns = np.array([summed(system, omega) for omega in OMEGA]), modal.turns(OMEGA)
    np.testing.assert_allclose(modal.apply(turns, block), np.einsum("kpm,mkb->pkb", matrices, block), atol=1e-12)
    expected = np.einsum("kpm,pkb->mkb", matrices.conj(), block)
    np.testing.assert_allclose(modal.adjoint(turns.conj(), block), expected, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_between_two_subspaces_it_is_the_response_from_both_sides(kind):
    system, rng = drawn(kind, inputs=3), np.random.default_rng(1)
    left, right = (rng.normal(size=(n, 2)) + 1j * rng.normal(size=(n, 2)) for n in (4, 3))
    expected = [left.conj().T @ summed(system, omega) @ right for omega in OMEGA]
    np.testing.assert_allclose(Modal.of(system, 0).between(left, right)(OMEGA), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_frobenius_norms_are_those_of_the_responses_and_not_below(kind):
    system, omega = drawn(kind), np.linspace(0, np.pi, 301)
    expected = np.linalg.norm([summed(system, at) for at in omega], axis=(1, 2))
    found = Modal.of(system, 0).frobenius(omega)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-7 * expected.max())
    assert (found >= expected).all()


def test_frobenius_norms_of_what_cancels_are_not_below_either():
    system = random_system(4, states=2, feedthrough="none")
    system = system.replace(
        poles=np.repeat(system.poles[:, :1], 2, axis=1),
        B=np.repeat(system.B[:, :1], 2, axis=1),
        C=np.stack([system.C[..., 0], -system.C[..., 0] * (1 + 1e-9)], axis=-1),
    )
    omega = np.linspace(0, np.pi, 301)
    expected = np.linalg.norm(Modal.of(system, 0).response(omega), axis=(1, 2))
    found = Modal.of(system, 0).frobenius(omega)
    assert (found >= expected).all()
    assert found.max() < 1e-5 * np.linalg.norm(system.C)


@pytest.mark.parametrize(("inputs", "outputs"), [(14, 3), (3, 25), (14, 25), (4, 4)])
@pytest.mark.parametrize("directions", [1, 2])
def test_fewer_inputs_and_outputs_have_the_same_singular_values(inputs, outputs, directions):
    system = drawn((directions, 0, 2, "none"), inputs=inputs, outputs=outputs)
    modal = Modal.of(system, 0)
    narrow = modal.narrow()
    assert narrow.D.shape == (min(outputs, 10 * directions), min(inputs, 10))
    values, expected = (np.linalg.svd(m.response(OMEGA), compute_uv=False) for m in (narrow, modal))
    np.testing.assert_allclose(values[:, : expected.shape[1]], expected[:, : values.shape[1]], atol=1e-12)


def test_states_that_nothing_drives_or_reads_are_left_out():
    system = drawn((2, 0, 2, "dense"))
    B, C = system.B.copy(), system.C.copy()
    B[0, 1], C[0, :, :, 2] = 0, 0
    idle = system.replace(B=B, C=C)
    assert len(Modal.of(idle, 0).poles) == 3
    expected = [summed(idle, omega) for omega in OMEGA]
    np.testing.assert_allclose(Modal.of(idle, 0).response(OMEGA), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("directions", [1, 2])
def test_a_layer_without_active_states_is_its_feedthrough(directions):
    system = drawn((directions, 0, 2, "dense"))
    modal = Modal.of(system.replace(B=np.zeros_like(system.B)), 0)
    np.testing.assert_array_equal(modal.response(OMEGA), np.broadcast_to(system.D, (len(OMEGA), 4, 4)))
    assert modal.frobenius(OMEGA) == pytest.approx(np.linalg.norm(system.D))


def test_where_a_reduced_response_is_highest_lies_between_the_ends():
    system = random_system(5, states=6, inputs=4, outputs=3, pairing=2, feedthrough="full")
    modal = Modal.of(system, 0)
    left, right = np.eye(3, dtype=complex)[:, :2], np.eye(4, dtype=complex)[:, 1:]
    omega, highest = reduced_peak(modal, left, right, 0.2, 1.1)
    at = np.linspace(0.2, 1.1, 40_001)
    values = np.linalg.svd(modal.response(at)[:, :2, 1:], compute_uv=False)[:, 0]
    assert 0.2 <= omega <= 1.1
    assert highest == pytest.approx(values.max(), rel=1e-7)
    assert omega == pytest.approx(at[values.argmax()], abs=1e-3)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_climbed_peak_is_the_top_of_a_fine_grid(kind):
    system = drawn(kind, states=8, inputs=12, outputs=12)
    modal = Modal.of(system, 0)
    values = np.linalg.svd(modal.response(np.linspace(0, np.pi, 4001)), compute_uv=False)[:, 0]
    assert values.max() * (1 - 1e-12) <= climbed_peak(modal) <= values.max() * (1 + 1e-4)
