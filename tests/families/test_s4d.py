from __future__ import annotations

import math

import numpy as np
import pytest

from lastcli.engine.criteria import energies
from lastcli.engine.system import Reduction
from lastcli.errors import UnsupportedModelError
from lastcli.families import detect
from lastcli.families.s4.s4d import S4D
from tests import oracles
from tests.builders.named import Arrays, infos
from tests.builders.s4d import s4d_kernel, s4d_layer, s4d_model
from tests.families.rebuilding import (
    config_of,
    forward_of,
    keep,
    layers_of,
    masked,
    pruned,
    rebuilt,
    some_kept,
    systems_of,
)

FAMILY = S4D()
SPELLINGS = {
    "published": {},
    "flat": {"flat": True},
    "native": {"native": True},
    "flat native": {"flat": True, "native": True},
}


def build(seed: int = 0, **spelling: bool) -> Arrays:
    return {f"block.s4d.{name}": a for name, a in s4d_layer(np.random.default_rng(seed), **spelling).items()}


def plain_layer(t: Arrays, u: np.ndarray) -> np.ndarray:
    """S4D by its definition, one state of one channel at a time: u (L, H) → y (L, H)."""
    C = t["C"] if t["C"].dtype.kind == "c" else t["C"][..., 0] + 1j * t["C"][..., 1]
    y = u * t["D"].astype(float)
    for h in range(u.shape[1]):
        dt = math.exp(t["log_dt"][h])
        for n in range(C.shape[1]):
            a = complex(-math.exp(t["log_A_real"][h, n]), t["A_imag"][h, n])
            decay = np.exp(a * dt)
            x = 0j
            for k in range(len(u)):
                x = decay * x + (decay - 1) / a * u[k, h]
                y[k, h] += 2 * (complex(C[h, n]) * x).real
    return y


def plain_model(arrays: Arrays, x: np.ndarray, prenorm: bool = False) -> np.ndarray:
    """The example model, one sequence x (L, F) → logits."""
    erf = np.vectorize(math.erf)

    def dense(h: np.ndarray, name: str) -> np.ndarray:
        W = arrays[f"{name}.weight"].astype(float)
        return h @ W.reshape(W.shape[:2]).T + arrays[f"{name}.bias"]

    def layer_norm(h: np.ndarray, i: int) -> np.ndarray:
        centred = h - h.mean(-1, keepdims=True)
        scaled = centred / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
        return scaled * arrays[f"norms.{i}.weight"] + arrays[f"norms.{i}.bias"]

    h = dense(x, "encoder")
    for i in range(sum(name.endswith("log_dt") for name in arrays)):
        prefix = f"s4_layers.{i}."
        t = {name.split(".")[-1]: a for name, a in arrays.items() if name.startswith(prefix) and "linear" not in name}
        y = plain_layer(t, layer_norm(h, i) if prenorm else h)
        value, gate = np.split(dense(y * (1 + erf(y / math.sqrt(2))) / 2, f"{prefix}output_linear.0"), 2, axis=-1)
        h = h + value / (1 + np.exp(-gate))
        h = h if prenorm else layer_norm(h, i)
    return dense(h.mean(0), "decoder")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_system_is_the_published_recurrence(spelling: str) -> None:
    arrays = build(**SPELLINGS[spelling])
    assert detect(infos(arrays)).name == "s4d"
    (layer,) = layers_of(FAMILY, arrays, {})
    assert (layer.name, layer.states, layer.sets) == ("block.s4d", 5, 4)
    (system,) = systems_of(FAMILY, arrays, config_of(FAMILY, arrays))
    assert (system.pairing, system.sets, system.multi, system.feedthrough) == (2, 4, True, "dense")
    u = np.random.default_rng(1).normal(size=(25, 4))
    expected = plain_layer({name.split(".")[-1]: a for name, a in arrays.items()}, u)
    np.testing.assert_allclose(oracles.recurrence(system, u[None])[0], expected, atol=1e-6)


@pytest.mark.parametrize("prenorm", [False, True])
def test_forward_is_the_example_model(prenorm: bool) -> None:
    arrays = s4d_model(np.random.default_rng(0))
    x = np.random.default_rng(1).normal(size=(2, 30, 2)).astype("f4")
    outputs, inputs = forward_of(FAMILY, arrays, config_of(FAMILY, arrays, prenorm=prenorm), x)
    assert [u.shape for u in inputs] == [(2, 30, 4)] * 2
    np.testing.assert_allclose(outputs, [plain_model(arrays, one, prenorm) for one in x], atol=2e-5)


def test_true_lengths_hide_the_padding() -> None:
    arrays = s4d_model(np.random.default_rng(0))
    x = np.random.default_rng(1).normal(size=(2, 30, 2)).astype("f4")
    outputs, _ = forward_of(FAMILY, arrays, config_of(FAMILY, arrays), x, np.array([12, 30]))
    np.testing.assert_allclose(outputs[0], plain_model(arrays, x[0, :12]), atol=2e-5)


def test_masked_equals_compacted_in_the_model() -> None:
    arrays = s4d_model(np.random.default_rng(0))
    config = config_of(FAMILY, arrays)
    small = pruned(FAMILY, arrays, config, 2)
    assert small["s4_layers.1.kernel.C"].shape == (4, 2, 2)
    systems = systems_of(FAMILY, arrays, config)
    u = np.random.default_rng(2).normal(size=(1, 20, 4))
    for i, (system, compact) in enumerate(zip(systems, systems_of(FAMILY, small, config), strict=True)):
        zeroed = masked(system, some_kept(system, 2, i))
        np.testing.assert_allclose(oracles.recurrence(compact, u), oracles.recurrence(zeroed, u), atol=1e-12)
    x = np.random.default_rng(1).normal(size=(1, 30, 2)).astype("f4")
    np.testing.assert_allclose(forward_of(FAMILY, small, config, x)[0][0], plain_model(small, x[0]), atol=2e-5)


def test_every_channel_keeps_its_own_states() -> None:
    arrays = build()
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    kept = np.array([[0, 1], [3, 4], [1, 2], [0, 4]])
    small = rebuilt(FAMILY, arrays, config, [Reduction(kept, keep(system, kept))])
    for h, own in enumerate(kept):
        np.testing.assert_array_equal(small["block.s4d.kernel.A_imag"][h], arrays["block.s4d.kernel.A_imag"][h, own])


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_keeping_everything_gives_the_same_bytes(spelling: str) -> None:
    arrays = build(**SPELLINGS[spelling])
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    same = rebuilt(FAMILY, arrays, config, [Reduction(np.tile(np.arange(5), (4, 1)), system)])
    assert {name: a.tobytes() for name, a in same.items()} == {name: a.tobytes() for name, a in arrays.items()}


def test_padding_adds_stable_states_that_do_nothing() -> None:
    arrays = build()
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    kept = some_kept(system, 2)
    (padded,) = systems_of(FAMILY, rebuilt(FAMILY, arrays, config, [Reduction(kept, keep(system, kept))], 4), config)
    assert padded.states == 4
    assert not padded.C[..., 2:].any()
    assert np.abs(padded.poles).max() < 1


@pytest.mark.parametrize("spelling", ["published", "flat native"])
def test_a_refitted_read_out_comes_back(spelling: str) -> None:
    arrays = build(**SPELLINGS[spelling])
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    kept, rng = some_kept(system, 3), np.random.default_rng(3)
    small = keep(system, kept)
    wanted = small.replace(C=rng.normal(size=small.C.shape) + 1j, D=rng.normal(size=(4, 1, 1)))
    (got,) = systems_of(FAMILY, rebuilt(FAMILY, arrays, config, [Reduction(kept, wanted, "readout")]), config)
    np.testing.assert_array_equal(got.poles, small.poles)
    np.testing.assert_allclose(got.C, wanted.C, rtol=2e-6)
    np.testing.assert_allclose(got.D, wanted.D, rtol=2e-7)


def test_moved_poles_come_back_with_b_folded_into_c() -> None:
    arrays = build()
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    rng = np.random.default_rng(3)
    poles = rng.uniform(0.1, 0.95, (4, 3)) * np.exp(1j * rng.uniform(-3, 3, (4, 3)))
    poles[0, 0], poles[1, 1], poles[2, 2] = -0.6, 0.5, 0.0
    new = system.replace(
        poles=poles,
        B=rng.normal(size=(4, 3, 1)) + 1j * rng.normal(size=(4, 3, 1)),
        C=rng.normal(size=(4, 1, 1, 3)) + 1j * rng.normal(size=(4, 1, 1, 3)),
    )
    small = rebuilt(FAMILY, arrays, config, [Reduction(np.tile(np.arange(3), (4, 1)), new, "all")], 4)
    (got,) = systems_of(FAMILY, small, config)
    u = np.random.default_rng(2).normal(size=(1, 30, 4))
    np.testing.assert_allclose(oracles.recurrence(got, u), oracles.recurrence(new, u), atol=2e-5)


@pytest.mark.parametrize("criterion", ["h2", "hinf"])
def test_energies_are_the_norms_of_single_states(criterion: str) -> None:
    arrays = build()
    (system,) = systems_of(FAMILY, arrays, config_of(FAMILY, arrays))
    got = energies(system, criterion)
    assert got.shape == (4, 5)
    for h, n in ((0, 0), (2, 3)):
        # The complex impulse response of the state alone, long enough to have died out.
        t = {name.split(".")[-1]: a.astype(float) for name, a in arrays.items()}
        a = complex(-np.exp(t["log_A_real"][h, n]), t["A_imag"][h, n])
        decay = np.exp(a * np.exp(t["log_dt"][h]))
        k = np.arange(4000)
        pulse = complex(*t["C"][h, n]) * (decay - 1) / a * decay**k
        if criterion == "h2":
            expected = (np.abs(pulse) ** 2).sum()
        else:
            expected = np.abs(np.fft.fft(pulse, 2**18)).max() ** 2
        np.testing.assert_allclose(got[h, n], expected, rtol=1e-6)


def test_magnitudes_are_the_stored_parameters() -> None:
    arrays = build()
    (layer,) = layers_of(FAMILY, arrays, {})
    got = FAMILY.magnitudes(layer, {}, arrays.__getitem__)
    t = {name.split(".")[-1]: a.astype(float) for name, a in arrays.items()}
    np.testing.assert_allclose(got, t["log_A_real"] ** 2 + t["A_imag"] ** 2 + (t["C"] ** 2).sum(-1), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_half_precision(dtype: str) -> None:
    import ml_dtypes

    half = np.dtype(getattr(ml_dtypes, dtype, dtype))
    arrays = {name: a.astype(half) for name, a in build().items()}
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    kept = some_kept(system, 3)
    for changed in ("none", "readout", "all"):
        small = rebuilt(FAMILY, arrays, config, [Reduction(kept, keep(system, kept), changed)], 4)
        assert {a.dtype for a in small.values()} == {half}
        (got,) = systems_of(FAMILY, small, config)
        np.testing.assert_allclose(got.C[..., :3], keep(system, kept).C, rtol=0.03, atol=1e-6)


def test_layers_run_in_numeric_order_and_without_a_prefix() -> None:
    many: Arrays = {}
    for i in (10, 2, 1):
        many |= {f"s4_layers.{i}.{name}": a for name, a in s4d_layer(np.random.default_rng(i)).items()}
    assert [layer.name for layer in layers_of(FAMILY, many, {})] == ["s4_layers.1", "s4_layers.2", "s4_layers.10"]
    bare = s4d_kernel(np.random.default_rng(0))
    assert [layer.name for layer in layers_of(FAMILY, bare, {})] == ["layer"]
    assert systems_of(FAMILY, bare, {})[0].D is None


def test_another_model_around_the_layers_has_no_forward() -> None:
    arrays = s4d_model(np.random.default_rng(0))
    arrays["head.weight"] = arrays.pop("decoder.weight")
    assert FAMILY.forward(infos(arrays), config_of(FAMILY, arrays), layers_of(FAMILY, arrays, {})) is None


@pytest.mark.parametrize("gone", ["C", "A_imag", "log_dt"])
def test_a_wrong_spelling_names_the_family_and_the_tensor(gone: str) -> None:
    arrays = build()
    arrays["block.s4d.kernel.other"] = arrays.pop(f"block.s4d.kernel.{gone}")
    with pytest.raises(UnsupportedModelError, match=rf"nearest family is s4d.*block\.s4d\.kernel\.{gone}"):
        detect(infos(arrays))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("C", (4, 2, 5)), ("log_dt", (5,)), ("A_imag", (4,)), ("log_A_real", (5, 4)), ("A_imag", (4, 0))],
)
def test_shapes_that_contradict_each_other_are_refused(name: str, shape: tuple[int, ...]) -> None:
    arrays = build()
    arrays[f"block.s4d.kernel.{name}"] = np.zeros(shape, "f4")
    with pytest.raises(UnsupportedModelError, match=r"Tensor block\.s4d\.kernel\.\w+ has shape"):
        layers_of(FAMILY, arrays, {})


def test_as_many_states_as_channels_is_no_axis_mix_up() -> None:
    arrays = {f"x.{name}": a for name, a in s4d_layer(np.random.default_rng(0), H=4, N=4).items()}
    config = config_of(FAMILY, arrays)
    small = pruned(FAMILY, arrays, config, 3)
    assert small["x.kernel.C"].shape == (4, 3, 2)
    assert small["x.kernel.log_dt"].shape == (4,)
