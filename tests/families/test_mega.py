from __future__ import annotations

import numpy as np
import pytest

from lastcli.engine import criteria
from lastcli.engine.simulate import simulate
from lastcli.engine.system import DiagonalSystem, Reduction
from lastcli.errors import UnsupportedModelError
from lastcli.families import detect
from lastcli.families.mega.family import Mega
from tests import oracles
from tests.builders import mega
from tests.builders.named import Arrays, infos
from tests.families.rebuilding import (
    config_of,
    keep,
    layers_of,
    masked,
    rebuilt,
    single,
    some_kept,
    systems_of,
)

FAMILY = Mega()


def build(bidirectional: bool = False, transformers: bool = False) -> Arrays:
    layer = mega.mega_layer(np.random.default_rng(0), bidirectional=bidirectional)
    return mega.in_a_model(mega.as_transformers(layer) if transformers else layer)


def plain(arrays: Arrays, u: np.ndarray, gain: str = "delta") -> np.ndarray:
    """The moving average by its definition: u (L, D) → y (L, D), both directions, residual included."""
    back = {alias: role for role, alias in mega.TRANSFORMERS.items()}
    names = {name.split(".")[-1]: a.astype(float) for name, a in arrays.items() if ".norm." not in name}
    t = {back.get(name, name): a for name, a in names.items()}
    sigmoid = {role: 1 / (1 + np.exp(-t[role][..., 0])) for role in ("delta", "alpha")}
    p, q = sigmoid[gain], 1 - sigmoid["delta"] * sigmoid["alpha"]
    length, channels = u.shape
    y = u * t["omega"]
    for row in range(len(p)):
        channel = row % channels
        x = np.zeros(p.shape[1])
        for k in range(length) if row < channels else reversed(range(length)):
            x = q[row] * x + p[row] * t["beta"][row, :, 0] * u[k, channel]
            y[k, channel] += np.sqrt(1 / p.shape[1]) * (t["gamma"][row] * x).sum()
    return y


def response(system: DiagonalSystem, u: np.ndarray) -> np.ndarray:
    """What the layer's systems say: the second half of a bidirectional layer runs on the reversed sequence."""
    if system.groups == u.shape[1]:
        return oracles.recurrence(system, u[None])[0]
    y = oracles.recurrence(system, np.concatenate([u, u[::-1]], axis=1)[None])[0]
    return y[:, : u.shape[1]] + y[::-1, u.shape[1] :]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("transformers", [False, True])
@pytest.mark.parametrize("gain", ["delta", "alpha"])
def test_system_is_the_published_recurrence(bidirectional: bool, transformers: bool, gain: str) -> None:
    arrays = build(bidirectional, transformers)
    (system,) = systems_of(FAMILY, arrays, config_of(FAMILY, arrays, gain=gain))
    assert system.sets == (6 if bidirectional else 3)
    u = np.random.default_rng(1).normal(size=(11, 3))
    np.testing.assert_allclose(response(system, u), plain(arrays, u, gain), atol=1e-12)


def test_convolution_agrees_with_the_recurrence() -> None:
    arrays = build()
    (system,) = systems_of(FAMILY, arrays, config_of(FAMILY, arrays))
    u = np.random.default_rng(1).normal(size=(1, 50, 3)).astype("f4")
    np.testing.assert_allclose(simulate(single(system), u)[0], plain(arrays, u[0].astype(float)), atol=2e-5)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("size", [None, 4])
def test_masked_equals_compacted_under_the_new_scale(bidirectional: bool, size: int | None) -> None:
    arrays = build(bidirectional)
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    kept = some_kept(system, 2)
    small = rebuilt(FAMILY, arrays, config, [Reduction(kept, keep(system, kept))], size)
    (compact,) = systems_of(FAMILY, small, config)
    assert compact.states == (size or 2)
    u = np.random.default_rng(2).normal(size=(8, 3))
    np.testing.assert_allclose(response(compact, u), response(masked(system, kept), u), atol=2e-6)
    np.testing.assert_allclose(plain(small, u), response(masked(system, kept), u), atol=2e-6)


def test_gathers_are_bit_for_bit_except_gamma() -> None:
    arrays = build()
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    kept = some_kept(system, 2)
    small = rebuilt(FAMILY, arrays, config, [Reduction(kept, keep(system, kept))])
    path = "encoder.layers.0.mega_layer.move."
    for role in ("delta", "alpha", "beta"):
        expected = np.stack([arrays[path + role][row, own] for row, own in enumerate(kept)])
        np.testing.assert_array_equal(small[path + role], expected)
    expected = np.stack([arrays[f"{path}gamma"][row, own] for row, own in enumerate(kept)]) * np.sqrt(2 / 5)
    np.testing.assert_allclose(small[f"{path}gamma"], expected, rtol=1e-7)


def test_keeping_everything_gives_the_same_bytes() -> None:
    arrays = build(True)
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    same = rebuilt(FAMILY, arrays, config, [Reduction(np.tile(np.arange(5), (6, 1)), system)])
    assert {name: a.tobytes() for name, a in same.items()} == {name: a.tobytes() for name, a in arrays.items()}


@pytest.mark.parametrize("size", [2, 4])
def test_a_new_read_out_and_residual(size: int) -> None:
    arrays = build(True)
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    kept = some_kept(system, 2)
    rng = np.random.default_rng(3)
    wanted = keep(system, kept).replace(C=rng.normal(size=(6, 1, 1, 2)) + 0j, D=rng.normal(size=(6, 1, 1)))
    small = rebuilt(FAMILY, arrays, config, [Reduction(kept, wanted, "readout")], size)
    u = rng.normal(size=(7, 3))
    # a feedthrough of the backward rows acts at the same step as one of the forward rows
    np.testing.assert_allclose(plain(small, u), response(wanted, u), atol=5e-6)


def test_new_real_poles_survive_the_sigmoids() -> None:
    arrays = build()
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    rng = np.random.default_rng(4)
    wanted = keep(system, np.tile([0, 1, 2], (3, 1))).replace(
        poles=rng.uniform(0.05, 0.99, (3, 3)) + 0j, B=rng.normal(size=(3, 3, 1)) + 0j
    )
    small = rebuilt(FAMILY, arrays, config, [Reduction(np.tile([0, 1, 2], (3, 1)), wanted, "all")])
    (got,) = systems_of(FAMILY, small, config)
    np.testing.assert_allclose(got.poles, wanted.poles, rtol=1e-5)
    np.testing.assert_allclose(got.B, wanted.B, rtol=1e-6)
    np.testing.assert_allclose(got.C, wanted.C, rtol=1e-6)


@pytest.mark.parametrize(
    ("poles", "C", "says"), [(0.5 + 0.1j, 1.0, "complex poles"), (-0.5, 1.0, "between 0 and 1"), (0.5, 1j, "read-out")]
)
def test_what_real_states_cannot_hold_is_refused(poles: complex, C: complex, says: str) -> None:
    arrays = build()
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    kept = np.zeros((3, 1), int)
    wanted = keep(system, kept).replace(poles=np.full((3, 1), poles), C=np.full((3, 1, 1, 1), C, complex))
    with pytest.raises(UnsupportedModelError, match=says):
        rebuilt(FAMILY, arrays, config, [Reduction(kept, wanted, "all")])


def test_energies_are_norms_of_single_decays() -> None:
    arrays = build(True)
    (system,) = systems_of(FAMILY, arrays, config_of(FAMILY, arrays))
    hinf, h2 = criteria.hinf(system), criteria.h2(system)
    path = "encoder.layers.0.mega_layer.move."
    for row, state in ((0, 1), (2, 4), (5, 0)):
        one = {path + name: arrays[path + name][[row]][:, [state]] for name in ("delta", "alpha", "beta", "gamma")}
        one[f"{path}gamma"] = one[f"{path}gamma"] / np.sqrt(5)
        h = plain({**one, f"{path}omega": np.zeros(1)}, np.eye(2000, 1))[:, 0]
        np.testing.assert_allclose(h2[row, state], (h**2).sum(), rtol=1e-6)
        np.testing.assert_allclose(hinf[row, state], h.sum() ** 2, rtol=1e-6)


@pytest.mark.parametrize("transformers", [False, True])
def test_is_detected_by_names_and_shapes(transformers: bool) -> None:
    arrays = build(transformers=transformers)
    assert detect(infos(arrays)).name == "mega"
    assert [layer.name for layer in layers_of(FAMILY, arrays, {})] == ["encoder.layers.0.mega_layer.move"]


def test_norms_alone_are_no_mega() -> None:
    norms = {f"norm.{name}": np.ones(3, "f4") for name in ("alpha", "beta", "gamma", "delta")}
    assert FAMILY.match(infos(norms)).found == 0


@pytest.mark.parametrize(("transformers", "gone"), [(False, "gamma"), (True, "ema_expansion_matrix")])
def test_a_wrong_spelling_names_the_family_and_the_tensor(transformers: bool, gone: str) -> None:
    arrays = build(transformers=transformers)
    arrays["other"] = arrays.pop(f"encoder.layers.0.mega_layer.move.{gone}")
    with pytest.raises(UnsupportedModelError, match=f"nearest family is mega.*move.{gone}"):
        detect(infos(arrays))


@pytest.mark.parametrize(("name", "shape"), [("gamma", (3, 5, 1)), ("beta", (3, 4, 1)), ("omega", (2,))])
def test_shapes_that_contradict_each_other_are_refused(name: str, shape: tuple[int, ...]) -> None:
    arrays = build()
    arrays[f"encoder.layers.0.mega_layer.move.{name}"] = np.zeros(shape, "f4")
    with pytest.raises(UnsupportedModelError, match="has shape"):
        layers_of(FAMILY, arrays, {})


def test_attention_is_said_to_be_missing_only_where_it_is_causal() -> None:
    arrays = build()
    config = config_of(FAMILY, arrays)
    layers = layers_of(FAMILY, arrays, config)
    assert FAMILY.lacks(infos(arrays), config, layers) is None
    assert "is_decoder" in str(FAMILY.lacks(infos(arrays), {**config, "causal": "true"}, layers))
