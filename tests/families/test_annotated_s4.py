from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lastcli.engine.criteria import energies
from lastcli.engine.system import Reduction
from lastcli.errors import UnsupportedModelError, UsageError
from lastcli.families import detect, family_named
from tests import oracles
from tests.builders.annotated import KINDS, annotated_layer, annotated_model
from tests.builders.named import Arrays, infos, updated
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

L = 18
U = np.random.default_rng(1).normal(size=(L, 4))
FAMILIES = {kind: family_named(f"annotated_{kind}") for kind in KINDS}


def build(kind: str, seed: int = 0, **options: Any) -> tuple[Arrays, dict[str, Any]]:
    arrays = {f"params/layers_0/seq/{n}": a for n, a in annotated_layer(np.random.default_rng(seed), kind).items()}
    if kind != "s4d":
        options = {"kernel_length": L} | options
    return arrays, config_of(FAMILIES[kind], arrays, **options)


def plain_kernel(t: Arrays, kind: str) -> np.ndarray:
    """K (H, L), channel by channel, from the published formulas."""
    t = {name: np.asarray(a, complex if a.dtype.kind == "c" else float) for name, a in t.items()}
    step = np.exp(t["log_step"][0])
    K = np.zeros((len(step), L))
    for h, dt in enumerate(step):
        if kind == "s4d":
            a, C = np.minimum(t["A_re"][:, h], -1e-4) + 1j * t["A_im"][:, h], t["C"][:, h, 0] + 1j * t["C"][:, h, 1]
            K[h] = ((C * (np.exp(dt * a) - 1) / a)[:, None] * np.exp(np.outer(dt * a, np.arange(L)))).sum(0).real
        elif kind == "dss":
            a, W = t["Lambda_re"][:, h] + 1j * t["Lambda_im"][:, h], t["W"][0, h, :, 0] + 1j * t["W"][0, h, :, 1]
            rows = np.exp(np.outer(dt * a, np.arange(L)))
            K[h] = ((W / a) @ (rows / rows.sum(1, keepdims=True))).real
        else:
            # The generating function at the roots of unity, by a dense resolvent; stored C is the transformed one.
            a = np.minimum(t["Lambda_re"][:, h], -1e-4) + 1j * t["Lambda_im"][:, h]
            P, B, C = t["P"][:, h], t["B"][:, h], t["C"][:, h, 0] + 1j * t["C"][:, h, 1]
            A, eye = np.diag(a) - np.outer(P, P.conj()), np.eye(len(a))
            omega = np.exp(-2j * np.pi * np.arange(L) / L)
            values = [
                C.conj() @ np.linalg.solve((2 * eye - dt * A) - w * (2 * eye + dt * A), 2 * dt * B) for w in omega
            ]
            K[h] = np.fft.ifft(values).real
    return K


def plain_layer(t: Arrays, kind: str, u: np.ndarray) -> np.ndarray:
    K = plain_kernel(t, kind)
    y = u * t["D"].astype(float)
    for k in range(len(u)):
        y[k] += sum(K[:, j] * u[k - j] for j in range(k + 1))
    return y


@pytest.mark.parametrize("kind", KINDS)
def test_system_is_the_published_convolution(kind: str) -> None:
    arrays, config = build(kind)
    assert detect(infos(arrays)).name == f"annotated_{kind}"
    (layer,) = layers_of(FAMILIES[kind], arrays, config)
    assert (layer.name, layer.states, layer.sets) == ("params/layers_0/seq", 5, 4)
    (system,) = systems_of(FAMILIES[kind], arrays, config)
    assert (system.groups, system.states, system.pairing, system.sets) == (4, 5, 1, 4)
    t = {name.split("/")[-1]: a for name, a in arrays.items()}
    np.testing.assert_allclose(oracles.recurrence(system, U[None])[0], plain_layer(t, kind, U), atol=2e-5)


def test_the_clip_holds_and_b_counts_only_where_it_is_used() -> None:
    arrays, config = build("s4d")
    arrays["params/layers_0/seq/A_re"][:] = 0.3
    (system,) = systems_of(FAMILIES["s4d"], arrays, config)
    step = np.exp(arrays["params/layers_0/seq/log_step"].astype(float))[0]
    np.testing.assert_allclose(np.abs(system.poles), np.exp(-1e-4 * step)[:, None] * np.ones((1, 5)), rtol=1e-9)
    (used,) = systems_of(FAMILIES["s4d"], arrays, {**config, "use_b": True})
    B = (arrays["params/layers_0/seq/B_re"] + 1j * arrays["params/layers_0/seq/B_im"]).T
    np.testing.assert_allclose(used.C[:, 0, 0], system.C[:, 0, 0] * B, rtol=1e-6)


def test_growing_modes_are_scaled_by_their_last_entry() -> None:
    arrays, config = build("dss")
    arrays["params/layers_0/seq/Lambda_re"][:2] = 0.4
    (system,) = systems_of(FAMILIES["dss"], arrays, config)
    t = {name.split("/")[-1]: a for name, a in arrays.items()}
    np.testing.assert_allclose(oracles.recurrence(system, U[None])[0], plain_layer(t, "dss", U), atol=2e-5)
    with pytest.raises(UnsupportedModelError, match=r"modes grow.*kernel_length=L"):
        systems_of(FAMILIES["dss"], arrays, {**config, "kernel_length": 0})


def test_the_softmax_has_a_limit_and_s4_needs_its_length() -> None:
    arrays, config = build("dss")
    (limit,) = systems_of(FAMILIES["dss"], arrays, {**config, "kernel_length": 0})
    (long,) = systems_of(FAMILIES["dss"], arrays, {**config, "kernel_length": 5000})
    np.testing.assert_allclose(limit.C, long.C, rtol=1e-6)
    arrays, config = build("s4")
    with pytest.raises(UnsupportedModelError, match=r"give the length of the training sequences"):
        systems_of(FAMILIES["s4"], arrays, {**config, "kernel_length": 0})


@pytest.mark.parametrize("kind", ["s4d", "dss"])
def test_keeping_everything_gives_the_same_bytes(kind: str) -> None:
    arrays, config = build(kind)
    (system,) = systems_of(FAMILIES[kind], arrays, config)
    same = rebuilt(FAMILIES[kind], arrays, config, [Reduction(np.tile(np.arange(5), (4, 1)), system)])
    assert {n: a.tobytes() for n, a in same.items()} == {n: a.tobytes() for n, a in arrays.items()}


@pytest.mark.parametrize("kind", ["s4d", "dss"])
def test_masked_equals_compacted(kind: str) -> None:
    arrays, config = build(kind)
    (system,) = systems_of(FAMILIES[kind], arrays, config)
    kept = some_kept(system, 3)
    small = rebuilt(FAMILIES[kind], arrays, config, [Reduction(kept, keep(system, kept))], 4)
    (compact,) = systems_of(FAMILIES[kind], small, config)
    assert compact.states == 4
    assert not compact.C[..., 3:].any()
    got, zeroed = oracles.recurrence(compact, U[None]), oracles.recurrence(masked(system, kept), U[None])
    np.testing.assert_allclose(got, zeroed, atol=1e-12)


@pytest.mark.parametrize("changed", ["readout", "all"])
@pytest.mark.parametrize("kind", ["s4d", "dss"])
def test_refitted_layers_come_back(kind: str, changed: str) -> None:
    arrays, config = build(kind)
    (system,) = systems_of(FAMILIES[kind], arrays, config)
    kept, rng = some_kept(system, 3), np.random.default_rng(3)
    wanted = keep(system, kept)
    wanted = wanted.replace(C=rng.normal(size=wanted.C.shape) + 1j, D=rng.normal(size=wanted.D.shape))
    if changed == "all":
        poles = rng.uniform(0.3, 0.95, (4, 3)) * np.exp(1j * rng.uniform(-3, 3, (4, 3)))
        wanted = wanted.replace(poles=poles, B=rng.normal(size=(4, 3, 1)) + 0.5j)
    small = rebuilt(FAMILIES[kind], arrays, config, [Reduction(kept, wanted, changed)], 4)
    (got,) = systems_of(FAMILIES[kind], small, config)
    expected = oracles.recurrence(wanted, U[None])
    np.testing.assert_allclose(oracles.recurrence(got, U[None]), expected, atol=2e-5 * np.abs(expected).max())


def test_s4_is_written_as_s4d() -> None:
    arrays, config = build("s4")
    (system,) = systems_of(FAMILIES["s4"], arrays, config)
    (layer,) = layers_of(FAMILIES["s4"], arrays, config)
    kept = some_kept(system, 3)
    for size in (3, 4):
        changes = FAMILIES["s4"].rebuild(layer, config, arrays.__getitem__, Reduction(kept, keep(system, kept)), size)
        small = updated(arrays, changes)
        described = FAMILIES["s4"].rebuilt_config(config)
        assert detect(infos(small)).name == described.pop("family") == "annotated_s4d"
        assert described.keys() == {option.key for option in FAMILIES["s4d"].options}
        assert {n.split("/")[-1] for n in small} == {"A_re", "A_im", "B_re", "B_im", "C", "D", "log_step"}
        assert small["params/layers_0/seq/C"].shape == (size, 4, 2)
        (got,) = systems_of(FAMILIES["s4d"], small, described)
        zeroed = oracles.recurrence(masked(system, kept), U[None])
        np.testing.assert_allclose(oracles.recurrence(got, U[None]), zeroed, atol=1e-5 * np.abs(zeroed).max())


def test_conversion_keeps_the_model() -> None:
    arrays = annotated_model(np.random.default_rng(0), "s4", decoding=True)
    config = config_of(FAMILIES["s4"], arrays, kernel_length=L)
    changes, described = FAMILIES["s4"].convert(infos(arrays), config, arrays.__getitem__, "annotated_s4d")
    converted = updated(arrays, changes)
    assert not any(name.startswith(("cache/", "prime/")) for name in converted)
    x = np.random.default_rng(1).normal(size=(2, L, 1)).astype("f4")
    before, _ = forward_of(FAMILIES["s4"], arrays, config, x)
    after, _ = forward_of(FAMILIES["s4d"], converted, described, x)
    np.testing.assert_allclose(after, before, atol=5e-5)
    with pytest.raises(UsageError, match="converts to annotated_s4d"):
        FAMILIES["s4"].convert(infos(arrays), config, arrays.__getitem__, "s4d")


def plain_model(arrays: Arrays, x: np.ndarray, kind: str, prenorm: bool, sequence: bool) -> np.ndarray:
    """The stacked model by its definition: one sequence x (L, 1) → log-probabilities."""

    def dense(h: np.ndarray, name: str) -> np.ndarray:
        return h @ arrays[f"params/{name}/kernel"].astype(float) + arrays[f"params/{name}/bias"]

    def layer_norm(h: np.ndarray, i: int) -> np.ndarray:
        scaled = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-6)
        return scaled * arrays[f"params/layers_{i}/norm/scale"] + arrays[f"params/layers_{i}/norm/bias"]

    if sequence:
        x = np.concatenate([np.zeros((1, 1)), x[:-1] / (1 if "params/encoder/embedding" in arrays else 255)])
    if "params/encoder/embedding" in arrays:
        tokens = x[:, 0].astype(int)
        h = np.where(tokens[:, None] > 0, arrays["params/encoder/Embed_0/embedding"][tokens], 0)
    else:
        h = dense(x, "encoder")
    for i in range(2):
        t = {n.split("/")[-1]: a for n, a in arrays.items() if n.startswith(f"params/layers_{i}/seq/")}
        y = plain_layer(t, kind, layer_norm(h, i) if prenorm else h)
        y = y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3))) / 2
        gate = 1 / (1 + np.exp(-dense(y, f"layers_{i}/out2"))) if f"params/layers_{i}/out2/bias" in arrays else 1
        h = h + dense(y, f"layers_{i}/out") * gate
        h = h if prenorm else layer_norm(h, i)
    logits = dense(h if sequence else h.mean(0), "decoder")
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize(
    ("kind", "prenorm", "sequence", "glu", "embedding"),
    [("s4d", True, False, True, False), ("s4", False, False, False, False), ("dss", True, True, True, True)],
)
def test_forward_is_the_published_model(kind: str, prenorm: bool, sequence: bool, glu: bool, embedding: bool) -> None:
    rng = np.random.default_rng(0)
    arrays = annotated_model(rng, kind, glu=glu, embedding=embedding)
    options = {"prenorm": prenorm, "mode": "sequence" if sequence else "pool"}
    options |= {} if kind == "s4d" else {"kernel_length": L}
    x = rng.integers(0, 3, (2, L, 1)) if embedding else rng.normal(size=(2, L, 1)).astype("f4")
    outputs, inputs = forward_of(FAMILIES[kind], arrays, config_of(FAMILIES[kind], arrays, **options), x)
    assert [u.shape for u in inputs] == [(2, L, 4)] * 2
    np.testing.assert_allclose(outputs, [plain_model(arrays, one, kind, prenorm, sequence) for one in x], atol=3e-5)


def test_decoding_collections_are_left_out_of_a_reduced_file() -> None:
    arrays = annotated_model(np.random.default_rng(0), "s4d", decoding=True)
    config = config_of(FAMILIES["s4d"], arrays)
    assert [layer.name for layer in layers_of(FAMILIES["s4d"], arrays, config)] == [
        "params/layers_0/seq",
        "params/layers_1/seq",
    ]
    small = pruned(FAMILIES["s4d"], arrays, config, 2)
    assert small.keys() == {name for name in arrays if name.startswith("params/")}


@pytest.mark.parametrize("kind", KINDS)
def test_energies_follow_the_impulse_response(kind: str) -> None:
    arrays, config = build(kind)
    (system,) = systems_of(FAMILIES[kind], arrays, config)
    got = energies(system, "h2")
    pulses = system.C[:, 0, 0, :, None] * system.B * system.poles[..., None] ** np.arange(6000)
    np.testing.assert_allclose(got, (np.abs(pulses) ** 2).sum(-1), rtol=1e-8)


@pytest.mark.parametrize(("kind", "gone"), [("s4d", "B_im"), ("dss", "log_step"), ("s4", "P")])
def test_a_wrong_spelling_names_the_family_and_the_tensor(kind: str, gone: str) -> None:
    arrays, _ = build(kind)
    arrays["params/layers_0/seq/other"] = arrays.pop(f"params/layers_0/seq/{gone}")
    with pytest.raises(
        UnsupportedModelError, match=f"nearest family is annotated_{kind}, .*params/layers_0/seq/{gone}"
    ):
        detect(infos(arrays))


@pytest.mark.parametrize(
    ("kind", "name", "shape"), [("s4d", "C", (4, 5, 2)), ("dss", "W", (1, 5, 4, 2)), ("s4", "P", (4, 5))]
)
def test_shapes_that_contradict_each_other_are_refused(kind: str, name: str, shape: tuple[int, ...]) -> None:
    arrays, config = build(kind)
    arrays[f"params/layers_0/seq/{name}"] = np.zeros(shape, "f4")
    with pytest.raises(UnsupportedModelError, match=rf"Tensor params/layers_0/seq/{name} has shape"):
        layers_of(FAMILIES[kind], arrays, config)


def test_layers_without_a_path_have_a_name() -> None:
    bare = annotated_layer(np.random.default_rng(0), "dss")
    assert [layer.name for layer in layers_of(FAMILIES["dss"], bare, {})] == ["layer"]
    assert detect(infos(bare)).name == "annotated_dss"


def test_a_model_without_its_decoder_is_not_known() -> None:
    arrays = annotated_model(np.random.default_rng(0), "s4d")
    family = family_named("annotated_s4d")
    config = config_of(family, arrays)
    for known in (True, False):
        found = family.forward(infos(arrays), config, layers_of(family, arrays, config))
        assert (found is not None) == known
        arrays = {name: a for name, a in arrays.items() if not name.endswith("decoder/bias")}
