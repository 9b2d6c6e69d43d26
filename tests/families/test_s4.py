from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lastcli.engine.criteria import energies
from lastcli.engine.reductions import refit, residual, truncate
from lastcli.engine.system import DiagonalSystem, Reduction
from lastcli.engine.white_noise import white_noise_moments
from lastcli.errors import UnsupportedModelError
from lastcli.families import detect
from lastcli.families.s4.family import S4
from lastcli.families.s4.s4d import S4D
from tests import oracles
from tests.builders.named import Arrays, infos, updated
from tests.builders.s4 import Numbers, example_model, numbers, prefixed, v1, v2_diagonal, v3, v4
from tests.families.rebuilding import (
    config_of,
    forward_of,
    keep,
    layers_of,
    masked,
    rebuilt,
    some_kept,
    systems_of,
)
from tests.upstream.s4 import convolve, diagonal_kernel, softmax_kernel

FAMILY = S4()
RNG = np.random.default_rng(7)
U = RNG.normal(size=(20, 4))

# name → (numbers, their spelling, the options, the rule, B where the format has none)
CASES: dict[str, tuple[Numbers, Arrays, dict[str, object], str]] = {}


def case(name: str, k: Numbers, arrays: Arrays, rule: str = "zoh", **options: object) -> None:
    CASES[name] = (k, prefixed(arrays, "blocks.0.layer."), options, rule)


_k = numbers(RNG)
case("V4", _k, v4(_k))
case("V4 bilinear", _k, v4(_k), "bilinear", discretization="bilinear")
case("V4 softplus dt", _k, v4(_k, dt_transform="softplus"), dt_transform="softplus")
case("V4 fast dt", _k, v4(_k, dt_fast=True), dt_fast=True)
for _kind in ("softplus", "none", "relu", "sigmoid"):
    case(f"V4 {_kind} decay", _k, v4(_k, real_transform=_kind), real_transform=_kind)
_k = replace(_k, A=_k.A.conj())
case("V4 exp frequency", _k, v4(_k, imag_transform="exp"), imag_transform="exp")
_k = numbers(RNG, dt_tie=False)
case("V4 dt per state", _k, v4(_k))
_k = numbers(RNG, S=2)
case("V4 tied in two copies", _k, v4(_k))
_k = numbers(RNG, S=1)
case("V4 tied", _k, v4(_k))
_k = numbers(RNG, heads=3)
case("V4 heads", _k, v4(_k))
_k = numbers(RNG, both=True)
case("V4 bidirectional", _k, v4(_k))
_k = numbers(RNG, heads=2, both=True, S=2)
case("V4 bidirectional heads", _k, v4(_k))
_k = numbers(RNG)
case("V3", _k, v3(_k), "bilinear")
_k = numbers(RNG)
case("V3 with the poles it started from", _k, v3(_k, idle=True), "bilinear")
_k = numbers(RNG)
case("V3 relu decay", _k, v3(_k, real_transform="relu"), "bilinear", real_transform="relu")
_k = numbers(RNG, S=1, both=True)
case("V2 without B", _k, v2_diagonal(_k))

_k = numbers(np.random.default_rng(8))
case("V2 one way, without B", _k, v2_diagonal(_k))
_v1 = {name: a for name, a in v1(_k, _k.P, 8).items() if name.split(".")[-1] not in ("P", "Q", "omega", "z")}
case("V1 without a low rank", _k, _v1, "bilinear")


def silenced(k: Numbers, limit: float) -> Numbers:
    """What a kernel with a band limit computes with: C is zero where a mode makes half the limit or more a step."""
    C = k.C.copy()
    for h in range(C.shape[1]):
        for n in range(C.shape[2]):
            if k.dt[h, -1 if k.dt.shape[1] == 1 else n] * abs(k.A[h % len(k.A), n].imag) / (2 * np.pi) >= limit / 2:
                C[:, h, n] = 0
    return replace(k, C=C)


_k = numbers(RNG)
case("V4 limited band", silenced(_k, 0.3), v4(_k), bandlimit=0.3)
_k = numbers(RNG, S=2, both=True, dt_tie=False)
case("V4 limited band, bidirectional", silenced(_k, 0.3), v4(_k), bandlimit=0.3)
_k = numbers(RNG)
case("V3 limited band", silenced(_k, 0.3), v3(_k), "bilinear", bandlimit=0.3)


def loaded(name: str) -> tuple[Numbers, Arrays, dict[str, object], str]:
    k, arrays, options, rule = CASES[name]
    return k, arrays, config_of(FAMILY, arrays, **options), rule


def expected_output(name: str) -> np.ndarray:
    k, _, config, rule = loaded(name)
    B = np.ones_like(k.B) if "without B" in name else None
    return convolve(diagonal_kernel(k, rule, len(U), B), k.D, U, bool(config["bidirectional"]))


@pytest.mark.parametrize("name", CASES)
def test_system_is_the_published_convolution(name: str) -> None:
    k, arrays, config, _ = loaded(name)
    assert detect(infos(arrays)).name == "s4"
    (layer,) = layers_of(FAMILY, arrays, config)
    assert (layer.name, layer.states, layer.sets) == ("blocks.0.layer", 3, len(k.A))
    (system,) = systems_of(FAMILY, arrays, config)
    assert system.bidirectional == ("bidirectional" in name or name == "V2 without B")
    assert (system.groups, system.states, system.outputs) == (4, 3, len(k.D))
    np.testing.assert_allclose(oracles.recurrence(system, U[None])[0], expected_output(name), atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_keeping_everything_gives_the_same_bytes(name: str) -> None:
    _, arrays, config, _ = loaded(name)
    (system,) = systems_of(FAMILY, arrays, config)
    whole = np.tile(np.arange(3), (system.sets, 1))
    same = rebuilt(FAMILY, arrays, config, [Reduction(whole, system)])
    assert {n: a.tobytes() for n, a in same.items()} == {n: a.tobytes() for n, a in arrays.items()}


@pytest.mark.parametrize("name", CASES)
def test_masked_equals_compacted(name: str) -> None:
    _, arrays, config, _ = loaded(name)
    (system,) = systems_of(FAMILY, arrays, config)
    kept = some_kept(system, 2)
    assert len(kept) == system.sets
    (compact,) = systems_of(FAMILY, rebuilt(FAMILY, arrays, config, [Reduction(kept, keep(system, kept))]), config)
    assert compact.states == 2
    got, zeroed = oracles.recurrence(compact, U[None]), oracles.recurrence(masked(system, kept), U[None])
    np.testing.assert_allclose(got, zeroed, atol=1e-12)


def refitted(system: DiagonalSystem, seed: int = 3) -> DiagonalSystem:
    rng = np.random.default_rng(seed)
    C = rng.normal(size=system.C.shape) + 1j * rng.normal(size=system.C.shape)
    return system.replace(C=C, D=rng.normal(size=system.D.shape))


@pytest.mark.parametrize("name", CASES)
def test_a_refitted_read_out_comes_back(name: str) -> None:
    _, arrays, config, _ = loaded(name)
    (system,) = systems_of(FAMILY, arrays, config)
    kept = some_kept(system, 2)
    wanted = refitted(keep(system, kept))
    small = rebuilt(FAMILY, arrays, config, [Reduction(kept, wanted, "readout")], 3)
    (got,) = systems_of(FAMILY, small, config)
    scale = np.abs(oracles.recurrence(wanted, U[None])).max()
    difference = oracles.recurrence(got, U[None]) - oracles.recurrence(wanted, U[None])
    assert np.abs(difference).max() < 2e-6 * scale


KEPT_POLES = ("bidirectional", "limited", "V2 without B")


@pytest.mark.parametrize("name", [name for name in CASES if not any(word in name for word in KEPT_POLES)])
def test_moved_poles_come_back_one_copy_a_channel(name: str) -> None:
    _, arrays, config, _ = loaded(name)
    (system,) = systems_of(FAMILY, arrays, config)
    rng = np.random.default_rng(5)
    # Slow enough for a sigmoid to hold the decay, and of both signs.
    poles = rng.uniform(0.92, 0.99, (4, 2)) * np.exp(1j * rng.uniform(-1, 1, (4, 2)))
    new = refitted(keep(system, some_kept(system, 2))).replace(poles=poles, B=rng.normal(size=(4, 2, 1)) + 0.5j)
    small = rebuilt(FAMILY, arrays, config, [Reduction(np.tile(np.arange(2), (system.sets, 1)), new, "all")], 3)
    (got,) = systems_of(FAMILY, small, config)
    assert got.sets == 4
    scale = np.abs(oracles.recurrence(new, U[None])).max()
    assert np.abs(oracles.recurrence(got, U[None]) - oracles.recurrence(new, U[None])).max() < 2e-5 * scale


def test_moved_poles_are_refused_in_both_directions() -> None:
    _, arrays, config, _ = loaded("V4 bidirectional")
    (system,) = systems_of(FAMILY, arrays, config)
    new = system.replace(poles=0.9 * np.exp(1j * np.ones_like(system.poles)))
    with pytest.raises(UnsupportedModelError, match="moves the poles cannot be written back into a bidirectional"):
        rebuilt(FAMILY, arrays, config, [Reduction(np.tile(np.arange(3), (4, 1)), new, "all")])


@pytest.mark.parametrize("name", ["V4 limited band", "V3 limited band"])
def test_a_limited_band_silences_whole_states(name: str) -> None:
    k, arrays, config, _ = loaded(name)
    (system,) = systems_of(FAMILY, arrays, config)
    silent = (k.C == 0).all(0)
    assert 0 < silent.sum() < silent.size
    np.testing.assert_array_equal(energies(system, "h2") == 0, silent)
    # A refit that keeps a silent state has no use for it, and the file computes what was fitted.
    moments, kept = white_noise_moments(system), np.tile(np.arange(3), (4, 1))
    reduction = refit(system, kept, moments)
    (got,) = systems_of(FAMILY, rebuilt(FAMILY, arrays, config, [reduction]), config)
    expected = oracles.recurrence(reduction.system, U[None])
    np.testing.assert_allclose(oracles.recurrence(got, U[None]), expected, atol=1e-5 * np.abs(expected).max())


def test_a_direct_part_of_both_directions_needs_a_place() -> None:
    """What the backward scan reads of the present step goes into D."""
    _, arrays, config, _ = loaded("V4 bidirectional")
    arrays = {name: a for name, a in arrays.items() if name != "blocks.0.layer.D"}
    config = config_of(FAMILY, arrays, bidirectional=True)
    (system,) = systems_of(FAMILY, arrays, config)
    assert system.D is None
    kept = some_kept(system, 2)
    new = keep(system, kept)
    rng = np.random.default_rng(3)
    turned = new.replace(C=rng.normal(size=new.C.shape) + 0j)
    with pytest.raises(UnsupportedModelError, match=r"blocks\.0\.layer: a refit .* needs a D .* use --refit none"):
        rebuilt(FAMILY, arrays, config, [Reduction(kept, turned, "readout")])


def test_layers_of_the_other_kind_are_left_out() -> None:
    _, arrays, config, _ = loaded("V4")
    both = arrays | prefixed(v4(_k, length=8), "blocks.1.layer.")
    assert [layer.name for layer in layers_of(FAMILY, both, config)] == ["blocks.0.layer"]


def test_the_example_model_pools_in_three_ways_only() -> None:
    rng = np.random.default_rng(0)
    arrays = example_model(rng, [v4(numbers(rng))], 4)
    config = config_of(FAMILY, arrays)
    layers = layers_of(FAMILY, arrays, config)
    assert FAMILY.forward(infos(arrays), config, layers) is not None
    with pytest.raises(UnsupportedModelError, match=r"mode is sum, but the example model .* pool, last and sequence"):
        FAMILY.forward(infos(arrays), {**config, "mode": "sum"}, layers)
    folded = arrays | {"encoder.weight": arrays["encoder.weight"][..., None]}
    assert FAMILY.forward(infos(folded), config, layers) is None


def test_poles_move_within_the_band_only() -> None:
    _, arrays, config, _ = loaded("V4 limited band")
    (system,) = systems_of(FAMILY, arrays, config)
    kept = np.tile(np.arange(2), (4, 1))
    slow = refitted(keep(system, kept)).replace(
        poles=0.9 * np.exp(np.full((4, 2), 0.5j)), B=np.ones((4, 2, 1), complex)
    )
    (got,) = systems_of(FAMILY, rebuilt(FAMILY, arrays, config, [Reduction(kept, slow, "all")], 3), config)
    expected = oracles.recurrence(slow, U[None])
    np.testing.assert_allclose(oracles.recurrence(got, U[None]), expected, atol=2e-5 * np.abs(expected).max())
    fast = slow.replace(poles=np.full((4, 2), 0.9 * np.exp(1.5j)))
    with pytest.raises(UnsupportedModelError, match=r"a pole moved beyond bandlimit=0\.3"):
        rebuilt(FAMILY, arrays, config, [Reduction(kept, fast, "all")])


@pytest.mark.parametrize("name", ["V4 relu decay", "V3 relu decay"])
def test_no_state_decays_slower_than_relu_allows(name: str) -> None:
    _, arrays, config, _ = loaded(name)
    (real,) = [n for n in arrays if n.endswith("A_real")]
    (system,) = systems_of(FAMILY, {**arrays, real: np.full((4, 3), -1.0, "f4")}, config)
    assert np.abs(system.poles).max() < 1
    kept = np.tile(np.arange(2), (4, 1))
    wanted = keep(system, kept).replace(poles=np.full((4, 2), 1 - 1e-7 + 0j))
    with pytest.raises(UnsupportedModelError, match=r"a decay rate of .*, but a relu parameter .* adds 0\.0001"):
        rebuilt(FAMILY, arrays, config, [Reduction(kept, wanted, "all")])


def test_tied_poles_stay_tied_when_pruned() -> None:
    _, arrays, config, _ = loaded("V4 tied in two copies")
    (system,) = systems_of(FAMILY, arrays, config)
    kept = np.array([[0, 2], [1, 2]])
    small = rebuilt(FAMILY, arrays, config, [Reduction(kept, keep(system, kept))])
    assert small["blocks.0.layer.kernel.A_real"].shape == (2, 2)
    assert small["blocks.0.layer.kernel.B"].shape == (1, 2, 2, 2)
    C = arrays["blocks.0.layer.kernel.C"]
    np.testing.assert_array_equal(small["blocks.0.layer.kernel.C"][:, 3], C[:, 3, [1, 2]])
    np.testing.assert_array_equal(small["blocks.0.layer.kernel.C"][:, 2], C[:, 2, [0, 2]])


def test_real_valued_kernels() -> None:
    k = numbers(RNG)
    k = replace(k, A=k.A.real + 0j, B=k.B.real + 0j, C=k.C.real + 0j)
    arrays = v4(k)
    del arrays["kernel.A_imag"]
    arrays["kernel.B"], arrays["kernel.C"] = arrays["kernel.B"][..., 0], arrays["kernel.C"][..., 0]
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    got = oracles.recurrence(system, U[None])[0]
    np.testing.assert_allclose(got, convolve(diagonal_kernel(k, "zoh", 20), k.D, U), atol=2e-5)
    kept = some_kept(system, 2)
    wanted = keep(system, kept)
    wanted = wanted.replace(C=wanted.C * 2, poles=wanted.poles**2)
    for changed in ("readout", "all"):
        small = rebuilt(FAMILY, arrays, config, [Reduction(kept, wanted, changed)])
        assert small["kernel.C"].shape == (1, 4, 2)
        (got_small,) = systems_of(FAMILY, small, config)
        expected = wanted if changed == "all" else wanted.replace(poles=keep(system, kept).poles)
        np.testing.assert_allclose(
            oracles.recurrence(got_small, U[None]), oracles.recurrence(expected, U[None]), atol=2e-5
        )
    with pytest.raises(UnsupportedModelError, match="holds real ones only"):
        rebuilt(FAMILY, arrays, config, [Reduction(kept, wanted.replace(poles=wanted.poles * 1j), "all")])


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("spell", [v4, v3])
@pytest.mark.parametrize("length", [12, 0])
def test_the_softmax_rule_takes_the_real_part_once(length: int, spell: Callable[..., Arrays], both: bool) -> None:
    k = numbers(RNG, both=both)
    arrays = spell(k)
    config = config_of(FAMILY, arrays, discretization="dss", kernel_length=length)
    (system,) = systems_of(FAMILY, arrays, config)
    u = U[: length or 20]
    expected = convolve(softmax_kernel(k, length or 4000)[..., : len(u)], k.D, u, both)
    np.testing.assert_allclose(oracles.recurrence(system, u[None])[0], expected, atol=2e-5)
    kept, moments = some_kept(system, 2), white_noise_moments(system)
    reduction = refit(system, kept, moments)
    (small,) = systems_of(FAMILY, rebuilt(FAMILY, arrays, config, [reduction]), config)
    wanted = oracles.recurrence(reduction.system, u[None])
    np.testing.assert_allclose(oracles.recurrence(small, u[None]), wanted, atol=1e-5 * np.abs(wanted).max())


def test_the_softmax_rule_becomes_s4d_with_the_same_response() -> None:
    k = numbers(RNG)
    arrays = v4(k)
    config = config_of(FAMILY, arrays, discretization="dss", kernel_length=20)
    changes, described = FAMILY.convert(infos(arrays), config, arrays.__getitem__, "s4d")
    assert described["family"] == "s4d"
    (system,) = systems_of(S4D(), updated(arrays, changes), described)
    expected = convolve(softmax_kernel(k, 20), k.D, U)
    np.testing.assert_allclose(oracles.recurrence(system, U[None])[0], expected, atol=2e-5)


@pytest.mark.parametrize("changed", ["none", "readout", "all"])
def test_the_poles_a_v3_kernel_started_from_keep_the_size_of_those_it_reads(changed: str) -> None:
    _, arrays, config, _ = loaded("V3 with the poles it started from")
    (system,) = systems_of(FAMILY, arrays, config)
    kept = some_kept(system, 2)
    reduction = Reduction(kept, keep(system, kept), changed)
    small = rebuilt(FAMILY, arrays, config, [reduction])
    name = "blocks.0.layer.kernel.kernel.A"
    assert small[name].shape == (4, 2, 2) == (*small[name.replace(".A", ".A_imag")].shape, 2)
    if changed != "all":
        np.testing.assert_array_equal(small[name], np.take_along_axis(arrays[name], kept[..., None], axis=1))
    (layer,) = layers_of(FAMILY, arrays, config)
    without = {n: a for n, a in arrays.items() if n != name}
    (bare,) = layers_of(FAMILY, without, config)
    np.testing.assert_array_equal(
        FAMILY.magnitudes(layer, config, arrays.__getitem__), FAMILY.magnitudes(bare, config, arrays.__getitem__)
    )
    padded = rebuilt(FAMILY, arrays, config, [reduction], size=3)
    assert padded[name].shape == (4, 3, 2)


def test_a_refit_of_both_directions_is_what_the_file_computes() -> None:
    _, arrays, config, _ = loaded("V4 bidirectional")
    (system,) = systems_of(FAMILY, arrays, config)
    kept, moments = some_kept(system, 2), white_noise_moments(system)
    reduction = refit(system, kept, moments)
    assert reduction.changed == "readout"
    assert residual(system, reduction, moments) < residual(system, truncate(system, kept), moments)
    (got,) = systems_of(FAMILY, rebuilt(FAMILY, arrays, config, [reduction]), config)
    expected = oracles.recurrence(reduction.system, U[None])
    np.testing.assert_allclose(oracles.recurrence(got, U[None]), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("criterion", ["h2", "hinf"])
@pytest.mark.parametrize("name", ["V4 bidirectional", "V4 tied in two copies"])
def test_energies_follow_the_published_kernel_of_a_single_state(name: str, criterion: str) -> None:
    k, arrays, config, _ = loaded(name)
    (system,) = systems_of(FAMILY, arrays, config)
    got = energies(system, criterion)
    assert got.shape == (len(k.A), 3)
    s, n = 1, 2
    total = 0.0
    for h in range(s, 4, len(k.A)):
        decay = np.exp(k.A[s, n] * k.dt[h, 0])
        pulse = (decay - 1) / k.A[s, n] * k.B[s, n] * k.C[:, h, n, None] * decay ** np.arange(3000)
        if criterion == "h2":
            squares = (np.abs(pulse) ** 2).sum(-1)
        else:
            squares = np.abs(np.fft.fft(pulse, 2**18)).max(-1) ** 2
        # One norm a direction; a single direction has one row here.
        total += np.sqrt(squares).mean() ** 2
    np.testing.assert_allclose(got[s, n], total, rtol=1e-5)


def test_magnitudes_count_tied_parameters_once() -> None:
    _, arrays, config, _ = loaded("V4 tied in two copies")
    (layer,) = layers_of(FAMILY, arrays, config)
    t = {name.split(".")[-1]: a.astype(float) for name, a in arrays.items()}
    own = t["A_real"] ** 2 + t["A_imag"] ** 2 + (t["B"] ** 2).sum((0, -1))
    C = (t["C"] ** 2).sum((0, -1))
    expected = own + np.stack([C[0] + C[2], C[1] + C[3]])
    np.testing.assert_allclose(FAMILY.magnitudes(layer, config, arrays.__getitem__), expected, rtol=1e-12)


@pytest.mark.parametrize("heads", [1, 2])
def test_forward_is_the_example_model_and_agrees_after_pruning(heads: int) -> None:
    rng = np.random.default_rng(0)
    ks = [numbers(rng, heads=heads) for _ in range(2)]
    arrays = example_model(rng, [v4(k) for k in ks], 4, heads)
    config = config_of(FAMILY, arrays)
    x = rng.normal(size=(1, 20, 1)).astype("f4")
    outputs, inputs = forward_of(FAMILY, arrays, config, x)
    layer_out = convolve(diagonal_kernel(ks[0], "zoh", 20), ks[0].D, np.asarray(inputs[0][0], float))
    assert layer_out.shape == (20, 4 * heads)
    # The second layer's input follows from the first one's output by the block's definition.
    gelu = layer_out * (1 + np.vectorize(math.erf)(layer_out / np.sqrt(2))) / 2
    W, b = (arrays[f"s4_layers.0.output_linear.0.{leaf}"] for leaf in ("weight", "bias"))
    value, gate = np.split(gelu @ W.T + b, 2, axis=-1)
    h = np.asarray(inputs[0][0], float) + value / (1 + np.exp(-gate))
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(inputs[1][0], h * arrays["norms.0.weight"] + arrays["norms.0.bias"], atol=2e-5)
    assert outputs.shape == (1, 3)


def test_conversion_to_s4d_keeps_the_outputs() -> None:
    rng = np.random.default_rng(0)
    arrays = example_model(rng, [v4(numbers(rng, S=2)), v4(numbers(rng))], 4)
    config = config_of(FAMILY, arrays, prenorm=True)
    changes, described = FAMILY.convert(infos(arrays), config, arrays.__getitem__, "s4d")
    converted = updated(arrays, changes)
    assert detect(infos(converted)).name == described["family"] == "s4d"
    assert described["prenorm"] is True
    assert converted["s4_layers.0.output_linear.0.weight"].shape == (8, 4, 1)
    assert not any("layer.kernel" in name for name in converted)
    x = rng.normal(size=(2, 30, 1)).astype("f4")
    before, _ = forward_of(FAMILY, arrays, config, x)
    after, _ = forward_of(S4D(), converted, config_of(S4D(), converted, prenorm=True), x)
    np.testing.assert_allclose(after, before, atol=2e-5)


def test_heads_have_no_stand_alone_form() -> None:
    _, arrays, config, _ = loaded("V4 heads")
    with pytest.raises(UnsupportedModelError, match="one head and one direction"):
        FAMILY.convert(infos(arrays), config, arrays.__getitem__, "s4d")


@pytest.mark.parametrize(
    ("name", "gone"),
    [("V4", "kernel.A_imag"), ("V4", "kernel.inv_dt"), ("V4", "kernel.C"), ("V3", "kernel.kernel.log_dt")],
)
def test_a_wrong_spelling_names_the_family_and_the_tensor(name: str, gone: str) -> None:
    arrays = dict(CASES[name][1])
    arrays["blocks.0.layer.other"] = arrays.pop(f"blocks.0.layer.{gone}")
    with pytest.raises(UnsupportedModelError, match=rf"nearest family is s4, .*blocks\.0\.layer\.{gone}"):
        detect(infos(arrays))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("C", (1, 4, 2, 3)), ("B", (1, 3, 4, 2)), ("inv_dt", (5, 1)), ("A_imag", (4, 2)), ("C", (1, 5, 3, 2))],
)
def test_shapes_that_contradict_each_other_are_refused(name: str, shape: tuple[int, ...]) -> None:
    _, arrays, config, _ = loaded("V4")
    arrays = {**arrays, f"blocks.0.layer.kernel.{name}": np.zeros(shape, "f4")}
    with pytest.raises(UnsupportedModelError, match=r"Tensor blocks\.0\.layer\.kernel\.\w+ has"):
        layers_of(FAMILY, arrays, config)


def test_a_description_that_contradicts_the_read_outs_is_refused() -> None:
    _, arrays, config, _ = loaded("V4")
    with pytest.raises(UnsupportedModelError, match="1 read-outs, which contradicts bidirectional=true"):
        layers_of(FAMILY, arrays, {**config, "bidirectional": True})


def test_a_pole_near_zero_cannot_start_one_step_earlier() -> None:
    _, arrays, config, _ = loaded("V4 bidirectional")
    arrays = {**arrays, "blocks.0.layer.kernel.A_real": np.full((4, 3), 6.0, "f4")}
    with pytest.raises(UnsupportedModelError, match="has a pole at"):
        systems_of(FAMILY, arrays, config)
