"""The denoiser against its definition written out in torch, and read-outs that stay real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lastcli
from lastcli import containers
from lastcli.containers.base import TensorSource
from lastcli.engine.reductions import truncate
from lastcli.errors import InputError, UnsupportedModelError
from lastcli.families import detect
from lastcli.families.attenuate.family import Attenuate
from tests.builders.attenuate import attenuate_layer, denoiser
from tests.builders.named import Arrays, infos
from tests.families.rebuilding import (
    config_of,
    forward_of,
    layers_of,
    pruned,
    rebuilt,
    some_kept,
    systems_of,
)
from tests.upstream.layers import attenuate

torch = pytest.importorskip("torch")
FAMILY = Attenuate()


def defined(t: Arrays, x: np.ndarray) -> np.ndarray:
    """The denoiser over one signal (L, features), float64: (steps, channels) throughout."""

    def block(path: str, x: np.ndarray, activated: bool = True) -> np.ndarray:
        at = 1 if f"{path}.0.bias" in t else 0
        if at:
            weight = torch.tensor(t[f"{path}.0.weight"], dtype=torch.float64)
            bias = torch.tensor(t[f"{path}.0.bias"], dtype=torch.float64)
            signal = torch.tensor(x.T[None])
            x = torch.nn.functional.conv1d(signal, weight, bias, padding=1, groups=len(bias))[0].numpy().T
        x = attenuate({role: t[f"{path}.{at}.{role}"] for role in ("log_dt", "A", "B", "C")}, {}, x)
        norm = f"{path}.{at + 1}.layer_norm"
        if f"{norm}.weight" in t:
            x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
            x = x * t[f"{norm}.weight"] + t[f"{norm}.bias"]
        return x / (1 + np.exp(-x)) if activated else x

    depth, skips = len({name.split(".")[1] for name in t if name.startswith("up_ssms")}), []
    for i in range(depth):
        skips.append(x)
        x = block(f"down_ssms.{i}.0", x)
        weight = t[f"down_ssms.{i}.1.weight"]
        r = weight.shape[2]
        x = np.array([sum(x[s * r + k] @ weight[:, :, k] for k in range(r)) for s in range(len(x) // r)])
    for i in range(2):
        x = block(f"hid_ssms.{i}", x)
    for i in reversed(range(depth)):
        weight = t[f"up_ssms.{i}.0.weight"]
        x = np.array([step @ weight[:, :, k] for step in x for k in range(weight.shape[2])])
        x = block(f"up_ssms.{i}.1", x + skips[i])
    return block("last_ssms.1", block("last_ssms.0", x), activated=False)


def test_the_denoiser_is_what_it_is_defined_as() -> None:
    arrays = denoiser(np.random.default_rng(0))
    x = np.random.default_rng(1).normal(size=(2, 12, 1)).astype("f4")
    outputs, inputs = forward_of(FAMILY, arrays, {}, x)
    np.testing.assert_allclose(outputs, [defined(arrays, signal.astype(float)) for signal in x], atol=2e-5)
    assert [u.shape[1:] for u in inputs] == [(12, 1), (6, 3), (2, 4), (2, 4), (6, 3), (12, 1), (12, 1), (12, 1)]


def test_layers_come_in_the_order_they_run() -> None:
    arrays = denoiser(np.random.default_rng(0))
    scrambled = {name: arrays[name] for name in sorted(arrays)}
    found = [layer.name for layer in layers_of(FAMILY, scrambled, {})]
    assert found == [
        *("down_ssms.0.0.0", "down_ssms.1.0.1", "hid_ssms.0.1", "hid_ssms.1.1"),
        *("up_ssms.1.1.1", "up_ssms.0.1.0", "last_ssms.0.0", "last_ssms.1.0"),
    ]


def test_a_smaller_denoiser_is_one_again() -> None:
    arrays = denoiser(np.random.default_rng(0))
    small = pruned(FAMILY, arrays, {}, 3)
    x = np.random.default_rng(1).normal(size=(1, 12, 1)).astype("f4")
    outputs, _ = forward_of(FAMILY, small, {}, x)
    np.testing.assert_allclose(outputs[0], defined(small, x[0].astype(float)), atol=2e-5)


def test_a_signal_that_does_not_fold_is_refused() -> None:
    arrays = denoiser(np.random.default_rng(0))
    with pytest.raises(InputError, match="have 13 steps; this model folds 6 into one"):
        forward_of(FAMILY, arrays, {}, np.zeros((1, 13, 1), "f4"))


def test_part_of_the_denoiser_is_layers_alone() -> None:
    arrays = {name: a for name, a in denoiser(np.random.default_rng(0)).items() if name.startswith("down_ssms")}
    assert detect(infos(arrays)).name == "attenuate"
    assert FAMILY.forward(infos(arrays), {}, layers_of(FAMILY, arrays, {})) is None


def test_a_refit_keeps_a_real_read_out() -> None:
    """The closed form of a complex read-out would halve this error, and its real part would be far off."""
    from lastcli.engine.reductions import refit
    from lastcli.engine.white_noise import white_noise_moments

    arrays = attenuate_layer(np.random.default_rng(3), N=10)
    (system,) = systems_of(FAMILY, arrays, {})
    fitted = refit(system, some_kept(system, 6), white_noise_moments(system))
    assert not np.any(fitted.system.C.imag)
    small = rebuilt(FAMILY, arrays, {}, [fitted])
    (after,) = systems_of(FAMILY, small, config_of(FAMILY, small))

    def impulse(s: object) -> np.ndarray:
        powers = np.asarray(s.poles)[0] ** np.arange(400)[:, None]
        return np.einsum("pn,kn,nm->kpm", s.C[0, 0], powers, s.B[0]).real

    target, features = impulse(system), np.asarray(after.poles)[0] ** np.arange(400)[:, None]
    basis = (features.real[:, :, None] * after.B[0].real).transpose(0, 2, 1).reshape(-1, 6)
    best = np.linalg.lstsq(basis, target.transpose(0, 2, 1).reshape(-1, 2), rcond=None)[0].T
    np.testing.assert_allclose(after.C[0, 0].real, best, atol=1e-3 * np.abs(best).max())


def test_poles_do_not_move() -> None:
    arrays = attenuate_layer(np.random.default_rng(3))
    (layer,) = layers_of(FAMILY, arrays, {})
    (system,) = systems_of(FAMILY, arrays, {})
    moved = truncate(system, some_kept(system, 6))
    moved = type(moved)(moved.kept, moved.system, "all")
    with pytest.raises(UnsupportedModelError, match="B and C are real"):
        FAMILY.rebuild(layer, {}, arrays.__getitem__, moved, 6)


def test_a_compact_denoiser_is_verified_on_signals_that_fold(tmp_path: Path) -> None:
    arrays = denoiser(np.random.default_rng(0), factors=(5, 7))
    source, small = tmp_path / "denoiser.safetensors", tmp_path / "small.safetensors"
    containers.write(source, [TensorSource.of(name, a) for name, a in arrays.items()], metadata={})
    lastcli.prune(source, small, ratio=0.4, refit="h2")
    found = lastcli.verify(source, small)
    assert found.ok
    assert any("random inputs: max difference" in check.detail for check in found.checks)
    assert lastcli.open(small).forward is not None
