"""simulate, states and kernel against the plain recurrence."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from lastcli.engine import scans
from lastcli.engine.embedding import as_precision
from lastcli.engine.recurrence import advance, answer, recurrence, start
from lastcli.engine.scans import powers
from lastcli.engine.simulate import kernel, simulate, states
from tests import oracles
from tests.systems import KINDS, embed, system_of


def inputs_of(system, length, n=2, seed=3):
    width = system.groups if system.multi else system.inputs
    return np.random.default_rng(seed).normal(size=(n, length, width))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 32, 97])
def test_output_is_that_of_the_plain_recurrence(kind, length):
    system = system_of(kind, seed=length)
    u = inputs_of(system, length)
    with jax.enable_x64(True):
        y = np.asarray(jax.jit(simulate)(system, u))
    np.testing.assert_allclose(y, oracles.recurrence(system, u), rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", ["mimo", "delay", "multi", "oscillators"])
def test_a_step_answers_what_the_plain_recurrence_does(kind):
    system = system_of(kind)
    u = inputs_of(system, 6)

    def one(state, now):
        layer = ready.replace(state=state)
        return advance(layer, now[:, None]), answer(layer, now[:, None])[:, 0]

    with jax.enable_x64(True):
        ready = recurrence(system)
        y = jax.jit(lambda u: jax.lax.scan(one, start(ready, len(u)), u.swapaxes(0, 1))[1])(u)
        np.testing.assert_allclose(y.swapaxes(0, 1), oracles.recurrence(system, u), rtol=0, atol=1e-11)


def test_a_backward_scan_has_no_step():
    with pytest.raises(ValueError, match="backward"):
        recurrence(system_of("bidirectional"))


@pytest.mark.parametrize("kind", ["mimo", "bidirectional", "delay", "multi-bidirectional"])
def test_states_give_the_output_through_the_read_out(kind):
    system = system_of(kind)
    u = inputs_of(system, 70)
    with jax.enable_x64(True):
        x = np.asarray(jax.jit(states)(system, u))
    assert x.shape == (2, 70, system.directions, system.groups, system.poles.shape[1])
    y = system.pairing * np.einsum("nlrgj,grcj->nlcg", x, system.C).real
    y = y.reshape(2, 70, -1)
    bare = system.replace(D=None)
    np.testing.assert_allclose(y, oracles.recurrence(bare, u), rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", ["mimo", "bidirectional", "delay", "multi-bidirectional", "oscillators"])
@pytest.mark.parametrize("length", [1, 10])
def test_kernel_is_the_impulse_response(kind, length):
    system = system_of(kind).replace(D=None)
    with jax.enable_x64(True):
        h = np.asarray(jax.jit(kernel, static_argnums=1)(system, length))
    assert h.shape == (system.groups, system.directions, system.outputs, system.inputs, length)
    for g in range(system.groups):
        for d in range(system.directions):
            alone = system.C.copy()
            if system.bidirectional:
                alone[:, 1 - d] = 0
            two_sided = oracles.impulse(system.replace(C=alone), g, length - 1)
            one_sided = two_sided[length - 1 :] if d == 0 else two_sided[length - 1 :: -1]
            np.testing.assert_allclose(np.moveaxis(h[g, d], -1, 0), one_sided, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["bidirectional", "multi"])
def test_a_masked_layer_is_the_smaller_layer_with_finite_gradients(kind):
    small = system_of(kind)
    masked = embed(small, 8, np.array([0, 2, 3, 5, 7]))
    u = inputs_of(small, 66)
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.jit(simulate)(masked, u), oracles.recurrence(small, u), rtol=0, atol=1e-11)
        gradient = jax.jit(jax.grad(lambda system: (simulate(system, u) ** 2).sum()))(masked)
    for name in ("poles", "B", "C"):
        assert np.isfinite(np.asarray(getattr(gradient, name))).all()


def test_gradient_is_the_finite_difference():
    system = system_of("paired")
    u = inputs_of(system, 70)

    def loss(radius):
        return (simulate(system.replace(poles=system.poles * radius), u) ** 2).sum()

    with jax.enable_x64(True):
        slope = float(jax.jit(jax.grad(loss))(1.0))
        value = jax.jit(loss)
        numeric = (float(value(1 + 1e-6)) - float(value(1 - 1e-6))) / 2e-6
    assert slope == pytest.approx(numeric, rel=1e-6)


def test_precision_is_that_of_the_system():
    system = jax.tree.map(lambda leaf: leaf.astype(np.result_type(leaf.dtype, 0)), system_of("multi"))
    single = jax.tree.map(lambda leaf: np.asarray(leaf, np.complex64 if np.iscomplexobj(leaf) else np.float32), system)
    u = inputs_of(system, 100)
    y = jax.jit(simulate)(single, u)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, oracles.recurrence(system, u), rtol=0, atol=2e-4)


def test_powers_of_zero():
    np.testing.assert_array_equal(powers(np.zeros(2), 4), [[1, 0, 0, 0]] * 2)


@pytest.mark.parametrize("kind", ["bidirectional", "delay", "multi-bidirectional"])
def test_chunks_change_nothing(kind):
    system = system_of(kind)
    u = inputs_of(system, 67)
    with jax.enable_x64(True):
        drive = u if system.multi else u @ np.concatenate([system.B[0].real, system.B[0].imag]).T
        drive = np.swapaxes(drive, 0, 1)
        whole = jax.jit(scans._passed_in_order)(system, drive)
        cut = jax.jit(scans._passed_in_chunks, static_argnums=2)(system, drive, 8)
    np.testing.assert_allclose(cut, whole, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", ["mimo", "bidirectional", "delay"])
def test_products_of_a_part_of_the_steps_change_nothing(kind, monkeypatch):
    system = system_of(kind)
    u = inputs_of(system, 67)
    with jax.enable_x64(True):
        whole = jax.jit(simulate)(system, u)
        monkeypatch.setattr(scans, "_KEPT_BYTES", 1)
        parts = jax.jit(lambda system, u: simulate(system, u))
        assert "f64[3," in parts.lower(system, u).compile().as_text()  # 67 steps in 3 blocks
        np.testing.assert_allclose(parts(system, u), whole, rtol=0, atol=1e-11)


def test_a_layer_without_states_answers_a_long_sequence_by_its_direct_term():
    system = system_of("bidirectional")
    bare = system.replace(poles=system.poles[:, :0], B=system.B[:, :0], C=system.C[..., :0])
    u = np.random.default_rng(0).normal(size=(2, 70, system.inputs)).astype(np.float32)
    expected = np.zeros((2, 70, system.outputs)) if system.D is None else u @ system.D[0].T
    bare = as_precision(bare, np.float32)
    np.testing.assert_allclose(jax.jit(simulate)(bare, u), expected, rtol=1e-5, atol=1e-6)
