"""Kernels whose terms cancel: where the forward pass runs in float64, and that it then gives what is defined."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.special import erf

from lastcli.errors import UnsupportedModelError
from lastcli.evaluation.data import Split
from lastcli.evaluation.passes import model_outputs
from lastcli.families.parts.blocks import as_features, pool
from lastcli.families.parts.cancellation import cancellation
from lastcli.families.parts.multi_siso import inverse_transform, transform
from lastcli.families.parts.stored_kernel import fit_residues, kernel_error
from lastcli.families.s4.dplr import S4DPLR
from lastcli.model.opening import open_checkpoint
from lastcli.reduction.calibration import layer_signals
from tests.builders.named import Arrays
from tests.builders.s4 import Numbers, example_model, hippo, numbers, v4
from tests.families.rebuilding import config_of, systems_of
from tests.systems import random_system
from tests.upstream.s4 import convolve, dense_kernel

Last = Callable[..., tuple[int, str, str]]
X = np.random.default_rng(2).normal(size=(3, 40, 1)).astype("f4")


def saved(path: Path, arrays: Arrays) -> Path:
    from safetensors.numpy import save_file

    save_file(arrays, path)
    return path


def example(k: Numbers) -> tuple[Arrays, Numbers]:
    """A model around one layer, and the layer's numbers as the file holds them: every digit counts here."""
    layer = v4(k, length=0)
    A = -np.exp(layer["kernel.A_real"].astype(float)) - 1j * layer["kernel.A_imag"].astype(float)
    k = dataclasses.replace(k, A=A, dt=np.exp(layer["kernel.inv_dt"].astype(float)))
    return example_model(np.random.default_rng(3), [layer], k.C.shape[1]), k


def defined(arrays: Arrays, k: Numbers, x: np.ndarray) -> np.ndarray:
    """The example model around one layer with a dense kernel, float64."""
    t = {name: a.astype(float) for name, a in arrays.items()}
    h = x @ t["encoder.weight"].T + t["encoder.bias"]
    y = np.stack([convolve(dense_kernel(k, len(u)), k.D, u) for u in h])
    y = y / 2 * (1 + erf(y / np.sqrt(2)))
    stem = "s4_layers.0.output_linear.0"
    y = y @ t[f"{stem}.weight"].reshape(2 * h.shape[-1], -1).T + t[f"{stem}.bias"].reshape(-1)
    value, gate = np.split(y, 2, axis=-1)
    h = h + value / (1 + np.exp(-gate))
    centred = h - h.mean(-1, keepdims=True)
    h = centred / np.sqrt(h.var(-1, keepdims=True) + 1e-5) * t["norms.0.weight"] + t["norms.0.bias"]
    return h.mean(1) @ t["decoder.weight"].T + t["decoder.bias"]


def evaluated(path: Path, precision: str | None = None) -> np.ndarray:
    checkpoint = open_checkpoint(path)
    forward = checkpoint.require_forward()
    forward = forward if precision is None else dataclasses.replace(forward, precision=precision)
    return np.concatenate(list(model_outputs(forward, checkpoint.params, checkpoint.systems, Split(X))))


def test_a_hippo_layer_runs_in_float64_and_gives_what_it_is_defined_as(tmp_path: Path) -> None:
    arrays, k = example(hippo(np.random.default_rng(0)))
    path = saved(tmp_path / "m.safetensors", arrays)
    assert open_checkpoint(path).require_forward().precision == "float64"
    expected = defined(arrays, k, X.astype(float))
    got = evaluated(path)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert np.abs(evaluated(path, "float32") - expected).max() > 1e-4


def test_a_trained_layer_stays_in_float32(tmp_path: Path) -> None:
    arrays, k = example(numbers(np.random.default_rng(0)))
    path = saved(tmp_path / "m.safetensors", arrays)
    assert open_checkpoint(path).require_forward().precision == "float32"
    got = evaluated(path)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, defined(arrays, k, X.astype(float)), atol=2e-5)


def test_calibration_sees_the_float64_inputs(tmp_path: Path) -> None:
    arrays, k = example(hippo(np.random.default_rng(0)))
    checkpoint = open_checkpoint(saved(tmp_path / "m.safetensors", arrays))
    systems = checkpoint.systems
    batches = Split(X).batches(3)
    signals = layer_signals(checkpoint.require_forward(), checkpoint.params, systems, systems, 0, batches)
    ((u, target, _),) = signals
    assert u.dtype == np.float64
    h = X.astype(float) @ arrays["encoder.weight"].astype(float).T + arrays["encoder.bias"]
    np.testing.assert_allclose(u, h, atol=1e-12)
    wanted = np.stack([convolve(dense_kernel(k, 40), k.D, sequence) for sequence in h])
    np.testing.assert_allclose(target, wanted, atol=1e-6)


@pytest.mark.parametrize("kind", [{"groups": 3, "inputs": 1, "multi": True}, {"directions": 2}, {"pairing": 2}])
def test_the_ratio_of_the_terms_to_their_sum(kind: dict[str, int]) -> None:
    system = random_system(5, feedthrough="none", **kind)
    powers = system.poles[..., None] ** np.arange(2000)
    K = np.einsum("grpn,gnm,gnk->grpmk", system.C, system.B, powers).real
    above = np.einsum("grpn,gnm,gnk->grpmk", abs(system.C), abs(system.B), abs(powers))
    ratio = np.sqrt((above**2).sum((2, 3, 4)) / (K**2).sum((2, 3, 4))).max(axis=1)
    np.testing.assert_allclose(cancellation(system), ratio, rtol=1e-6)


@pytest.mark.parametrize("states", [4, 6, 8])
def test_half_of_the_modes_keep_the_sum_of_all(states: int) -> None:
    arrays, k = example(hippo(np.random.default_rng(1), N=states))
    family = S4DPLR()
    (system,) = systems_of(family, arrays, config_of(family, arrays))
    powers = system.poles[..., None] ** np.arange(40)
    K = 2 * np.einsum("gn,gnk->gk", system.C[:, 0, 0] * system.B[..., 0], powers).real
    np.testing.assert_allclose(K, dense_kernel(k, 40)[0], atol=1e-7)


def test_a_conversion_that_storage_would_spoil_is_refused_and_nothing_is_written(tmp_path: Path, last: Last) -> None:
    arrays, _ = example(hippo(np.random.default_rng(0)))
    path = saved(tmp_path / "m.safetensors", arrays)
    for target in ("s4", "s4d"):
        code, _, err = last("convert", path, tmp_path / "c.safetensors", "--to-family", target)
        assert code == 4
        assert f"stored as {target} in float32, a kernel would differ by" in " ".join(err.split())
        assert not (tmp_path / "c.safetensors").exists()


def test_a_conversion_says_what_storage_cost(tmp_path: Path, last: Last) -> None:
    arrays, k = example(hippo(np.random.default_rng(0), N=4))
    path, out = saved(tmp_path / "m.safetensors", arrays), tmp_path / "c.safetensors"
    code, shown, err = last("convert", path, out, "--to-family", "s4d")
    assert code == 0, err
    assert "The largest error of a kernel after storage is" in shown + err
    K = dense_kernel(k, 200)[0]
    (system,) = open_checkpoint(out).systems
    powers = system.poles[..., None] ** np.arange(200)
    got = 2 * np.einsum("gn,gnk->gk", system.C[:, 0, 0] * system.B[..., 0], powers).real
    error = np.linalg.norm(got - K, axis=1) / np.linalg.norm(K, axis=1)
    assert error.max() < 1e-3


def test_a_read_out_fitted_on_rounded_poles_makes_up_for_their_rounding() -> None:
    arrays, _ = example(hippo(np.random.default_rng(0), N=4))
    family = S4DPLR()
    (system,) = systems_of(family, arrays, config_of(family, arrays))
    poles, residues = system.poles, (system.C[:, 0] * system.B[:, None, :, 0])
    rounded = poles.astype("c8").astype(complex)
    gain = np.ones_like(rounded)
    fitted = fit_residues(poles, residues, rounded, gain, np.float32, cancellation(system))
    powers = [p[..., None] ** np.arange(300) for p in (poles, rounded)]
    wanted = np.einsum("gpn,gnk->gpk", residues, powers[0]).real
    errors = [
        np.linalg.norm(np.einsum("gpn,gnk->gpk", r.astype("c8").astype(complex), powers[1]).real - wanted, axis=-1)
        for r in (residues, fitted)
    ]
    assert np.all(errors[1] <= errors[0])
    assert (errors[1] / errors[0]).min() < 0.5
    untouched = fit_residues(poles, residues, rounded, gain, np.float32, np.ones(len(poles)))
    np.testing.assert_array_equal(untouched, residues)


def test_terms_that_do_not_cancel_on_exact_poles_stay_as_they_are() -> None:
    system = random_system(3, states=4, inputs=1, outputs=1, groups=2, pairing=2, multi=True, feedthrough="none")
    residues = system.C[:, 0] * system.B[:, None, :, 0]
    kept = fit_residues(system.poles, residues, system.poles, np.ones((2, 4)), np.float32, np.full(2, 1e6))
    np.testing.assert_array_equal(kept, residues)
    louder = system.replace(C=system.C * np.array([1.1, 1.0])[:, None, None, None])
    assert kernel_error(system, system) == 0
    assert kernel_error(system, louder) == pytest.approx(0.1)


def test_a_sigmoid_holds_nothing_from_one_on() -> None:
    np.testing.assert_allclose(transform(inverse_transform(np.array([0.2, 0.9]), "sigmoid"), "sigmoid"), [0.2, 0.9])
    with pytest.raises(
        UnsupportedModelError, match=r"needs a decay rate of 1\.5, which a sigmoid parameter cannot hold"
    ):
        inverse_transform(np.array([0.2, 1.5]), "sigmoid", "a decay rate")


def test_pooling_and_features_of_plain_arrays() -> None:
    h = np.arange(12.0, dtype="f4").reshape(2, 3, 2)
    np.testing.assert_array_equal(pool(h, "last", np.array([2, 0])), [h[0, 1], h[1, 0]])
    np.testing.assert_array_equal(as_features(h[..., 0], 1, np.float32), h[..., :1])
