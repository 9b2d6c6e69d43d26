from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lastcli.engine.criteria import energies
from lastcli.engine.system import Reduction
from lastcli.errors import UnsupportedModelError
from lastcli.families import detect, family_named
from lastcli.families.s4.dss import DSS
from tests import oracles
from tests.builders.dss import dss_layer
from tests.builders.named import Arrays, infos, updated
from tests.builders.s4 import prefixed
from tests.families.rebuilding import (
    config_of,
    keep,
    layers_of,
    masked,
    rebuilt,
    some_kept,
    systems_of,
)
from tests.upstream.s4 import convolve

FAMILY = DSS()
L = 20
U = np.random.default_rng(1).normal(size=(L, 4))

# name → (how the builder makes it, the options that say what the tensors cannot)
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "softmax": ({}, {"kernel_length": L}),
    "softmax, one step": ({"two_steps": False}, {"kernel_length": L}),
    "softmax, growing modes": ({"growing": 2}, {"kernel_length": L}),
    "exp": ({"version": "exp"}, {}),
    "exp-re-im": ({"version": "exp-re-im"}, {}),
    "exp-no-scale": ({"version": "exp-no-scale"}, {"version": "exp-no-scale"}),
    "clip": ({"version": "clip", "growing": 1}, {"version": "clip"}),
    "heads": ({"version": "exp", "heads": 2}, {}),
    "bidirectional": ({"version": "exp", "both": True}, {}),
}


def build(name: str, seed: int = 0) -> tuple[Arrays, dict[str, Any]]:
    made, options = CASES[name]
    arrays = prefixed(dss_layer(np.random.default_rng(seed), **made), "layers.0.layer.")
    return arrays, config_of(FAMILY, arrays, **options)


def plain_kernel(arrays: Arrays, version: str) -> np.ndarray:
    """K (rows, H, L) by the definition: a softmax over each row of exp(k·a·dt), or the hold's gain."""
    t = {name.split(".")[-1]: a.astype(float) for name, a in arrays.items()}
    if "Lambda" in t:
        real, imag = t["Lambda"].T
        real = np.minimum(real, 1e-4) if "clip" in version else real
    else:
        real = -np.exp(t["Lambda_log_neg_re"])
        imag = np.exp(t["Lambda_log_im"]) if "Lambda_log_im" in t else t["Lambda_im"]
    W, dt = t["W"][..., 0] + 1j * t["W"][..., 1], np.exp(t["log_dt"]).reshape(4, -1)
    K = np.zeros((len(W), 4, L))
    for h in range(4):
        for n in range(len(real)):
            step = complex(real[n] * dt[h, 0], imag[n] * dt[h, -1])
            row, a = np.exp(step * np.arange(L)), complex(real[n], imag[n])
            if version == "softmax":
                row = row / row.sum() / a
            elif "no-scale" not in version:
                row = row * (np.exp(step) - 1) / a
            K[:, h] += (W[:, h, n, None] * row).real
    return K


@pytest.mark.parametrize("name", CASES)
def test_system_is_the_published_convolution(name: str) -> None:
    arrays, config = build(name)
    assert detect(infos(arrays)).name == "dss"
    (layer,) = layers_of(FAMILY, arrays, config)
    assert (layer.name, layer.states, layer.sets) == ("layers.0.layer", 5, 1)
    (system,) = systems_of(FAMILY, arrays, config)
    assert (system.groups, system.states, system.pairing, system.sets) == (4, 5, 1, 1)
    K = plain_kernel(arrays, CASES[name][0].get("version", "softmax"))
    expected = convolve(K, arrays["layers.0.layer.D"].astype(float), U, name == "bidirectional")
    np.testing.assert_allclose(oracles.recurrence(system, U[None])[0], expected, atol=2e-5)


def test_without_a_length_the_softmax_takes_its_limit() -> None:
    arrays, config = build("softmax")
    (limit,) = systems_of(FAMILY, arrays, {**config, "kernel_length": 0})
    (long,) = systems_of(FAMILY, arrays, {**config, "kernel_length": 5000})
    np.testing.assert_allclose(limit.C, long.C, rtol=1e-9)
    growing, config = build("softmax, growing modes")
    with pytest.raises(UnsupportedModelError, match=r"modes grow.*kernel_length=L"):
        systems_of(FAMILY, growing, {**config, "kernel_length": 0})


@pytest.mark.parametrize("name", CASES)
def test_masked_equals_compacted(name: str) -> None:
    arrays, config = build(name)
    (system,) = systems_of(FAMILY, arrays, config)
    kept = some_kept(system, 3)
    assert kept.shape == (1, 3)
    (compact,) = systems_of(FAMILY, rebuilt(FAMILY, arrays, config, [Reduction(kept, keep(system, kept))]), config)
    assert compact.states == 3
    got, zeroed = oracles.recurrence(compact, U[None]), oracles.recurrence(masked(system, kept), U[None])
    np.testing.assert_allclose(got, zeroed, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_keeping_everything_gives_the_same_bytes(name: str) -> None:
    arrays, config = build(name)
    (system,) = systems_of(FAMILY, arrays, config)
    same = rebuilt(FAMILY, arrays, config, [Reduction(np.arange(5)[None], system)])
    assert {n: a.tobytes() for n, a in same.items()} == {n: a.tobytes() for n, a in arrays.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_refitted_read_out_comes_back_and_padding_does_nothing(name: str) -> None:
    arrays, config = build(name)
    (system,) = systems_of(FAMILY, arrays, config)
    kept, rng = some_kept(system, 2), np.random.default_rng(3)
    wanted = keep(system, kept)
    wanted = wanted.replace(C=rng.normal(size=wanted.C.shape) + 1j, D=rng.normal(size=wanted.D.shape))
    (got,) = systems_of(FAMILY, rebuilt(FAMILY, arrays, config, [Reduction(kept, wanted, "readout")], 4), config)
    assert got.states == 4
    assert not got.C[..., 2 * got.modes :].any()
    assert np.abs(got.poles[:, 2 * got.modes :]).max() < 1
    expected = oracles.recurrence(wanted, U[None])
    np.testing.assert_allclose(oracles.recurrence(got, U[None]), expected, atol=5e-6 * np.abs(expected).max())


def test_shared_poles_cannot_move_apart() -> None:
    arrays, config = build("exp")
    (system,) = systems_of(FAMILY, arrays, config)
    with pytest.raises(UnsupportedModelError, match="shares its poles over all channels"):
        rebuilt(FAMILY, arrays, config, [Reduction(np.arange(5)[None], system, "all")])


@pytest.mark.parametrize("name", ["softmax", "exp", "exp-re-im"])
def test_conversion_to_s4d_keeps_the_response(name: str) -> None:
    arrays, config = build(name)
    changes, described = FAMILY.convert(infos(arrays), config, arrays.__getitem__, "s4d")
    converted = updated(arrays, changes)
    assert detect(infos(converted)).name == described["family"] == "s4d"
    assert converted["layers.0.layer.kernel.C"].shape == (4, 5, 2)
    (before,) = systems_of(FAMILY, arrays, config)
    (after,) = systems_of(family_named("s4d"), converted, {})
    np.testing.assert_allclose(oracles.recurrence(after, U[None]), oracles.recurrence(before, U[None]), atol=2e-5)


def test_energies_are_summed_over_the_channels_that_share_a_state() -> None:
    arrays, config = build("exp")
    (system,) = systems_of(FAMILY, arrays, config)
    t = {name.split(".")[-1]: a.astype(float) for name, a in arrays.items()}
    a = complex(-np.exp(t["Lambda_log_neg_re"][2]), t["Lambda_im"][2])
    total = 0.0
    for h in range(4):
        dt = np.exp(t["log_dt"][h])
        step = complex(a.real * dt[0], a.imag * dt[1])
        pulse = complex(*t["W"][0, h, 2]) * (np.exp(step) - 1) / a * np.exp(step * np.arange(3000))
        total += (np.abs(pulse) ** 2).sum()
    np.testing.assert_allclose(energies(system, "h2")[0, 2], total, rtol=1e-9)


def test_magnitudes_are_the_stored_parameters() -> None:
    arrays, config = build("softmax")
    (layer,) = layers_of(FAMILY, arrays, config)
    t = {name.split(".")[-1]: a.astype(float) for name, a in arrays.items()}
    expected = (t["Lambda"] ** 2).sum(-1) + (t["W"] ** 2).sum((0, 1, 3))
    np.testing.assert_allclose(FAMILY.magnitudes(layer, config, arrays.__getitem__)[0], expected, rtol=1e-12)


@pytest.mark.parametrize(("name", "gone"), [("softmax", "W"), ("exp", "log_dt"), ("exp", "Lambda_im")])
def test_a_wrong_spelling_names_the_family_and_the_tensor(name: str, gone: str) -> None:
    arrays, _ = build(name)
    arrays["layers.0.other"] = arrays.pop(f"layers.0.layer.kernel.{gone}")
    with pytest.raises(UnsupportedModelError, match=rf"nearest family is dss, .*layers\.0\.layer\.kernel\.{gone}"):
        detect(infos(arrays))


@pytest.mark.parametrize(
    ("name", "shape"), [("W", (1, 4, 5)), ("W", (1, 4, 6, 2)), ("log_dt", (5,)), ("Lambda", (2, 5))]
)
def test_shapes_that_contradict_each_other_are_refused(name: str, shape: tuple[int, ...]) -> None:
    arrays, config = build("softmax")
    arrays[f"layers.0.layer.kernel.{name}"] = np.zeros(shape, "f4")
    with pytest.raises(UnsupportedModelError, match=r"Tensor layers\.0\.layer\.kernel\.\w+ has shape"):
        layers_of(FAMILY, arrays, config)
