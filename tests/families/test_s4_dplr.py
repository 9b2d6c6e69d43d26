from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.linalg

from lastcli.engine.criteria import energies
from lastcli.engine.system import DiagonalSystem, Reduction
from lastcli.errors import UnsupportedModelError, UsageError
from lastcli.families import detect, family_named
from lastcli.families.parts.dplr import half_spectrum
from lastcli.families.s4.dplr import S4DPLR
from tests import oracles
from tests.builders.named import Arrays, infos, updated
from tests.builders.s4 import Numbers, example_model, numbers, prefixed, v0, v1, v3, v4
from tests.families.rebuilding import (
    config_of,
    forward_of,
    keep,
    layers_of,
    masked,
    some_kept,
    systems_of,
)
from tests.upstream.s4 import convolve, dense, dense_kernel, resolvent_kernel, transformed

FAMILY = S4DPLR()
RNG = np.random.default_rng(11)
U = RNG.normal(size=(20, 4))
L = 24  # the kernel length that C is stored for

CASES: dict[str, tuple[Numbers, Arrays, np.ndarray | None]] = {}
# Stand-alone S4D has no room for these.
NO_S4D = ("V4 heads", "V4 bidirectional")


def case(name: str, k: Numbers, spell: Any, **options: Any) -> None:
    """`k` is what the layer computes with; its file holds the transformed C."""
    CASES[name] = (k, prefixed(spell(replace(k, C=transformed(k, L)), length=L, **options), "blocks.0.layer."), None)


case("V4", numbers(RNG), v4)
case("V4 rank 2", numbers(RNG, rank=2), v4)
case("V4 tied in two copies", numbers(RNG, S=2), v4)
case("V4 heads", numbers(RNG, heads=2), v4)
case("V4 bidirectional", numbers(RNG, both=True), v4)
case("V4 softplus", numbers(RNG), v4, dt_transform="softplus", real_transform="softplus")
case("V3", numbers(RNG), v3)
case("V3 relu decay", numbers(RNG), v3, real_transform="relu")
case("V2", numbers(RNG, S=1), v3, poles="log", flat_dt=True)
_k = numbers(RNG)
CASES["V4 before its first run"] = (_k, prefixed(v4(_k, length=0), "blocks.0.layer."), None)
_k = numbers(RNG)
_k = replace(_k, P=3 * _k.P)
case("V4 strongly coupled", _k, v4)
_k = numbers(RNG)
_Q = _k.P.conj() * np.float32(1.1)
CASES["V1"] = (_k, prefixed(v1(replace(_k, C=transformed(_k, L, _Q)), _Q, L), "blocks.0.layer."), _Q)
for _name, _of in {"V0": {}, "V0 rank 2": {"rank": 2}, "V0 one copy": {"S": 1}}.items():
    _k = numbers(RNG, **_of)
    _Q = _k.P.conj() * np.float32(1.1)
    CASES[_name] = (_k, prefixed(v0(replace(_k, C=transformed(_k, L, _Q)), _Q, L), "blocks.0.layer."), _Q)


def loaded(name: str, **options: Any) -> tuple[Numbers, Arrays, dict[str, Any]]:
    k, arrays, _ = CASES[name]
    said = {"dt_transform": "softplus", "real_transform": "softplus"} if "softplus" in name else {}
    said |= {"real_transform": "relu"} if "relu" in name else {}
    return k, arrays, config_of(FAMILY, arrays, **said, **options)


def written(
    arrays: Arrays, config: dict[str, Any], reduction: Reduction, size: int
) -> tuple[Arrays, DiagonalSystem, str]:
    """What a rebuild leaves, and how the family of its description reads it."""
    (layer,) = layers_of(FAMILY, arrays, config)
    small = updated(arrays, FAMILY.rebuild(layer, config, arrays.__getitem__, reduction, size))
    described = FAMILY.rebuilt_config(config)
    family = family_named(described.pop("family"))
    assert detect(infos(small)).name == family.name
    assert described.keys() == {option.key for option in family.options}
    (system,) = systems_of(family, small, config_of(family, small, **described))
    return small, system, family.name


@pytest.mark.parametrize("name", CASES)
def test_system_is_the_published_convolution(name: str) -> None:
    k, arrays, config = loaded(name)
    assert detect(infos(arrays)).name == "s4_dplr"
    (layer,) = layers_of(FAMILY, arrays, config)
    assert (layer.name, layer.states, layer.sets) == ("blocks.0.layer", 3, 4)
    (system,) = systems_of(FAMILY, arrays, config)
    assert system.sets == 4
    K = dense_kernel(k, len(U), CASES[name][2])
    expected = convolve(K, k.D, U, bool(config["bidirectional"]))
    # C passes through float32 in its transformed form.
    np.testing.assert_allclose(oracles.recurrence(system, U[None])[0], expected, atol=2e-4 * np.abs(K).max())


def test_system_is_the_inverse_fft_of_the_stored_generating_function() -> None:
    k, arrays, config = loaded("V4")
    (system,) = systems_of(FAMILY, arrays, config)
    stored = replace(k, C=transformed(k, L).astype("c8").astype(complex))
    K = resolvent_kernel(stored, L)
    u = np.zeros((1, L, 4))
    u[0, 0] = 1
    got = oracles.recurrence(system.replace(D=None), u)[0]
    np.testing.assert_allclose(got, K[0].T, atol=1e-6 * np.abs(K).max())


def test_a_limited_band_silences_the_stored_read_out() -> None:
    k, arrays, config = loaded("V4", bandlimit=0.3)
    (system,) = systems_of(FAMILY, arrays, config)
    stored = transformed(k, L)
    loud = k.dt * np.abs(k.A.imag) / (2 * np.pi) < 0.15
    assert 0 < loud.sum() < loud.size
    K = resolvent_kernel(replace(k, C=stored * loud), L)
    u = np.zeros((1, L, 4))
    u[0, 0] = 1
    got = oracles.recurrence(system.replace(D=None), u)[0]
    np.testing.assert_allclose(got, K[0].T, atol=1e-6 * np.abs(K).max())
    # What is written is not limited any more: its modes are others.
    kept = np.tile(np.arange(system.states), (4, 1))
    for form in ("s4d", "s4"):
        (own,) = systems_of(FAMILY, arrays, {**config, "form": form})
        _, after, _ = written(arrays, {**config, "form": form}, Reduction(kept, own), own.states)
        np.testing.assert_allclose(oracles.recurrence(after, U[None]), oracles.recurrence(own, U[None]), atol=2e-4)


def test_real_poles_are_stored_with_half_their_coefficient() -> None:
    _, arrays, config = loaded("V4 strongly coupled")
    (system,) = systems_of(FAMILY, arrays, config)
    counts = []
    for h in range(4):
        poles = system.poles[h][np.abs(system.C[h, 0, 0]) > 0]
        real = np.abs(poles.imag) == 0
        assert 2 * (~real).sum() + real.sum() == 6
        counts.append(len(poles))
    assert max(counts) > 3
    assert system.states == max(counts)


def test_another_length_is_another_layer() -> None:
    _, arrays, config = loaded("V4")
    (system,) = systems_of(FAMILY, arrays, config)
    (untouched,) = systems_of(FAMILY, arrays, {**config, "kernel_length": 0})
    assert np.abs(system.C - untouched.C).max() > 1e-3 * np.abs(system.C).max()
    (said,) = systems_of(FAMILY, arrays, {**config, "kernel_length": L})
    np.testing.assert_array_equal(said.C, system.C)


def test_a_kernel_that_was_made_for_no_length_is_read_as_it_is() -> None:
    _, arrays, config = loaded("V4")
    bare = {name: a for name, a in arrays.items() if not name.endswith("l_kernel")}
    (system,) = systems_of(FAMILY, bare, config)
    (untouched,) = systems_of(FAMILY, arrays, {**config, "kernel_length": 0})
    np.testing.assert_array_equal(system.C, untouched.C)


def test_frequencies_of_one_sign_have_no_diagonal_form_in_the_repository() -> None:
    k = numbers(RNG)
    k = replace(k, A=k.A.conj())
    arrays = prefixed(v4(k, length=8, imag_transform="exp"), "blocks.0.layer.")
    config = config_of(FAMILY, arrays, imag_transform="exp", form="s4")
    (layer,), (system,) = layers_of(FAMILY, arrays, config), systems_of(FAMILY, arrays, config)
    kept = some_kept(system, 2)
    with pytest.raises(UnsupportedModelError, match="imag_transform=exp cannot hold; use form=s4d"):
        FAMILY.rebuild(layer, config, arrays.__getitem__, Reduction(kept, keep(system, kept)), 2)


@pytest.mark.parametrize(
    ("name", "form"), [(n, form) for n in CASES for form in ("s4d", "s4") if form == "s4" or n not in NO_S4D]
)
def test_a_reduced_layer_is_written_in_its_diagonal_form(name: str, form: str) -> None:
    _, arrays, config = loaded(name)
    assert config["form"] == ("s4" if name in NO_S4D else "s4d")
    config["form"] = form
    (system,) = systems_of(FAMILY, arrays, config)
    kept = some_kept(system, 2)
    small, got, family = written(arrays, config, Reduction(kept, keep(system, kept)), 3)
    assert family == form
    assert (got.states, got.sets) == (3, 4)
    assert not any(n.split(".")[-1] in ("P", "Q", "w", "l_kernel", "L", "omega", "z", "inv_w_real") for n in small)
    assert all(a.dtype == np.float32 and a.flags.c_contiguous for n, a in small.items())
    zeroed = oracles.recurrence(masked(system, kept), U[None])
    np.testing.assert_allclose(oracles.recurrence(got, U[None]), zeroed, atol=1e-5 * np.abs(zeroed).max())


@pytest.mark.parametrize("name", ["V4", "V4 bidirectional"])
def test_a_refitted_read_out_is_written(name: str) -> None:
    _, arrays, config = loaded(name)
    (system,) = systems_of(FAMILY, arrays, config)
    kept, rng = some_kept(system, 2), np.random.default_rng(3)
    wanted = keep(system, kept)
    wanted = wanted.replace(C=rng.normal(size=wanted.C.shape) + 1j, D=rng.normal(size=wanted.D.shape))
    _, got, _ = written(arrays, config, Reduction(kept, wanted, "readout"), 2)
    expected = oracles.recurrence(wanted, U[None])
    np.testing.assert_allclose(oracles.recurrence(got, U[None]), expected, atol=1e-5 * np.abs(expected).max())


def test_conversion_keeps_the_outputs_and_renames_the_model() -> None:
    rng = np.random.default_rng(0)
    ks = [numbers(rng), numbers(rng, S=2)]
    arrays = example_model(rng, [v4(replace(k, C=transformed(k, L)), length=L) for k in ks], 4)
    assert detect(infos(arrays)).name == "s4_dplr"
    config = config_of(FAMILY, arrays)
    x = rng.normal(size=(2, 30, 1)).astype("f4")
    before, _ = forward_of(FAMILY, arrays, config, x)
    for target in ("s4d", "s4"):
        changes, described = FAMILY.convert(infos(arrays), config, arrays.__getitem__, target)
        converted = updated(arrays, changes)
        family = family_named(target)
        assert detect(infos(converted)).name == described.pop("family") == target
        after, _ = forward_of(family, converted, config_of(family, converted, **described), x)
        np.testing.assert_allclose(after, before, atol=5e-5)
        assert ("s4_layers.0.kernel.C" in converted) == (target == "s4d")
        assert converted["s4_layers.1.output_linear.0.weight"].ndim == (3 if target == "s4d" else 2)
        assert converted["encoder.weight"] is arrays["encoder.weight"]
    with pytest.raises(UsageError, match="converts to s4d, s4, not to 's5'"):
        FAMILY.convert(infos(arrays), config, arrays.__getitem__, "s5")


def test_the_older_output_map_becomes_a_convolution() -> None:
    rng = np.random.default_rng(0)
    k = numbers(rng)
    arrays = example_model(rng, [v3(replace(k, C=transformed(k, L)), length=L)], 4, level="")
    arrays["s4_layers.0.output_linear.0.bias"] = arrays["s4_layers.0.output_linear.0.bias"][:, None]
    config = config_of(FAMILY, arrays)
    changes, _ = FAMILY.convert(infos(arrays), config, arrays.__getitem__, "s4d")
    converted = updated(arrays, changes)
    assert converted["s4_layers.0.output_linear.0.weight"].shape == (8, 4, 1)
    assert converted["s4_layers.0.output_linear.0.bias"].shape == (8,)
    assert converted["s4_layers.0.D"].shape == (4,)
    x = rng.normal(size=(1, 30, 1)).astype("f4")
    s4d = family_named("s4d")
    after, _ = forward_of(s4d, converted, config_of(s4d, converted), x)
    np.testing.assert_allclose(after, forward_of(FAMILY, arrays, config, x)[0], atol=5e-5)


def test_energies_are_those_of_the_dense_matrix_modes() -> None:
    k, arrays, config = loaded("V4")
    (system,) = systems_of(FAMILY, arrays, config)
    got = energies(system, "h2")
    for h in range(4):
        A, B, C = dense(k, h)
        poles, vectors = scipy.linalg.eig(A)
        residues = (C @ vectors)[0] * scipy.linalg.solve(vectors, B)
        half = k.dt[h, 0] / 2 * poles
        decay, gain = (1 + half) / (1 - half), k.dt[h, 0] / (1 - half)
        pulses = (residues * gain)[:, None] * decay[:, None] ** np.arange(4000)
        upper = np.flatnonzero(poles.imag > 1e-9)
        expected = np.sort((np.abs(pulses[upper]) ** 2).sum(1))
        complex_ones = np.abs(system.poles[h].imag) > 0
        np.testing.assert_allclose(np.sort(got[h][complex_ones]), expected, rtol=1e-3)


def test_a_matrix_without_a_diagonal_form_is_refused() -> None:
    # A Jordan block: both stored modes at -1, coupled one way only.
    Q = np.array([[[1.0, 0.0]]]) + 0j
    P = np.array([[[0.0, 1.0]]]) + 0j
    with pytest.raises(UnsupportedModelError, match="nearly dependent eigenvectors"):
        half_spectrum(np.array([[-1 + 1j, -1 + 1j]]), P, 1j * Q, np.ones((1, 2)), np.ones((1, 1, 2)), "x")


def test_a_step_of_its_own_for_every_state_is_refused() -> None:
    k = numbers(RNG, dt_tie=False)
    arrays = v4(k, length=0)
    with pytest.raises(UnsupportedModelError, match="a step of its own"):
        systems_of(FAMILY, arrays, config_of(FAMILY, arrays))


@pytest.mark.parametrize("gone", ["B", "A_imag", "inv_dt"])
def test_a_wrong_spelling_names_the_family_and_the_tensor(gone: str) -> None:
    arrays = dict(CASES["V4"][1])
    arrays["blocks.0.layer.other"] = arrays.pop(f"blocks.0.layer.kernel.{gone}")
    with pytest.raises(UnsupportedModelError, match=rf"nearest family is s4_dplr, .*blocks\.0\.layer\.kernel\.{gone}"):
        detect(infos(arrays))


def test_two_channels_of_version_0_are_no_two_directions() -> None:
    """Its first axis of C counts channels, where later versions count read-outs."""
    k = numbers(RNG, H=2)
    Q = k.P.conj()
    arrays = prefixed(v0(replace(k, C=transformed(k, L, Q)), Q, L), "blocks.0.layer.")
    config = config_of(FAMILY, arrays)
    assert (config["bidirectional"], config["form"]) == (False, "s4d")
    (system,) = systems_of(FAMILY, arrays, config)
    expected = convolve(dense_kernel(k, len(U), Q), k.D, U[:, :2])
    np.testing.assert_allclose(oracles.recurrence(system, U[None, :, :2])[0], expected, atol=2e-4)


def test_a_low_rank_term_of_version_0_may_differ_by_channel_where_the_poles_are_shared() -> None:
    k = numbers(RNG, S=1)
    Q = np.concatenate([0.5 * k.P.conj(), k.P.conj(), 1.2 * k.P.conj(), 1j * k.P.conj()], axis=1)
    whole = replace(k, A=np.tile(k.A, (4, 1)), B=np.tile(k.B, (4, 1)), P=np.tile(k.P, (1, 4, 1)))
    arrays = prefixed(v0(replace(k, C=transformed(whole, L, Q)), Q, L), "blocks.0.layer.")
    (system,) = systems_of(FAMILY, arrays, config_of(FAMILY, arrays))
    K = dense_kernel(whole, len(U), Q)
    np.testing.assert_allclose(oracles.recurrence(system, U[None])[0], convolve(K, k.D, U), atol=2e-4 * np.abs(K).max())


def test_version_0_without_a_low_rank_row_is_refused_by_its_shape() -> None:
    k = numbers(RNG)
    arrays = prefixed(v0(k, k.P.conj(), L), "layer.")
    arrays["layer.kernel.krylov.C"] = arrays["layer.kernel.krylov.C"][:, :1]
    with pytest.raises(UnsupportedModelError, match="S4's version 0 needs"):
        layers_of(FAMILY, arrays, {"bidirectional": False, "form": "s4d"})
