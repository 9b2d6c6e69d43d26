from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lastcli import containers
from lastcli.containers.base import TensorSource
from lastcli.engine.system import Reduction
from lastcli.errors import UnsupportedModelError
from lastcli.families import detect, family_named
from lastcli.families.base import Family
from lastcli.families.s4.dplr import S4DPLR
from lastcli.families.s4.dss import DSS
from lastcli.families.s4.family import S4
from tests.builders import s4 as spell
from tests.builders.dss import dss_layer
from tests.builders.named import Arrays, infos, updated
from tests.families.rebuilding import (
    config_of,
    forward_of,
    keep,
    layers_of,
    masked,
    single,
    some_kept,
    systems_of,
)
from tests.families.test_dss import plain_kernel
from tests.upstream.s4 import dense_kernel, diagonal_kernel, transformed

torch = pytest.importorskip("torch")

from tests.upstream.s4_sequence import Given, Shape, build, inputs_of  # noqa: E402

N, L = 2, 9


def v4(rng: np.random.Generator, H: int = 4, rule: str = "zoh", **options: Any) -> Given:
    k = spell.numbers(rng, H=H, N=3, **options)
    return Given(spell.v4(k), lambda length: diagonal_kernel(k, rule, length), options.get("both", False))


def v3(rng: np.random.Generator, H: int = 4, **options: Any) -> Given:
    k = spell.numbers(rng, H=H, N=3, **options)
    return Given(spell.v3(k), lambda length: diagonal_kernel(k, "bilinear", length), options.get("both", False))


def v2(rng: np.random.Generator, **options: Any) -> Given:
    k = spell.numbers(rng, N=3, **options)
    ones = np.ones_like(k.B)
    return Given(
        spell.v2_diagonal(k), lambda length: diagonal_kernel(k, "zoh", length, ones), options.get("both", False)
    )


def dplr(rng: np.random.Generator, **options: Any) -> Given:
    k = spell.numbers(rng, N=3, **options)
    stored = replace(k, C=transformed(k, 24))
    return Given(spell.v4(stored, length=24), lambda length: dense_kernel(k, length), options.get("both", False))


def dss(rng: np.random.Generator, **options: Any) -> Given:
    arrays = dss_layer(rng, "exp", **options)
    return Given(arrays, lambda length: plain_kernel(arrays, "exp")[..., :length], options.get("both", False))


MADE = {"v4": (S4(), v4), "v3": (S4(), v3), "v2": (S4(), v2), "dplr": (S4DPLR(), dplr), "dss": (DSS(), dss)}

OLD = Shape(version=1, mask_padding=False)
# name → (which layers, how they are made, the model around them, what the description has to say)
CASES: dict[str, tuple[str, dict[str, Any], Shape, dict[str, Any]]] = {
    "V4, batch norm before": ("v4", {"both": True}, Shape(norm="batch"), {}),
    "V4, layer norm after, heads": ("v4", {"heads": 2}, Shape(prenorm=False, heads=2, mode="last"), {}),
    "V4, tokens": ("v4", {"S": 2}, Shape(encoder="embedding", features=7, norm="batch"), {}),
    "V4, group norm": ("v4", {}, Shape(norm="group", mode="sequence"), {"norm": "group"}),
    "V4, instance norm": ("v4", {}, Shape(norm="instance"), {"norm": "instance", "prenorm": True}),
    "V4, no norm, no encoder": ("v4", {}, Shape(norm="none", encoder="none"), {}),
    "V4, nested layer norm, decay": ("v4", {}, Shape(norm="transposed", residual="D"), {}),
    "V4, affine residual": ("v4", {}, Shape(norm="layer", residual="A"), {}),
    "V4, no skip": ("v4", {}, Shape(residual="F"), {}),
    "V4, no output map": ("v4", {}, Shape(postact=None, activation="tanh"), {}),
    "V4, output map alone": ("v4", {}, Shape(postact="id"), {"postact": "none"}),
    "V4, gelu gate, weight norm": ("v4", {}, Shape(postact="glu-gelu", weight_norm=True), {"postact": "glu-gelu"}),
    "V4, gate inside": ("v4", {"heads": 2}, Shape(activation="glu"), {"activation": "glu"}),
    "V4, feed-forward": ("v4", {}, Shape(ff="gelu"), {}),
    "V4, gated feed-forward": ("v4", {}, Shape(ff="glu", norm="batch"), {}),
    "V4, pairs": ("v4", {"both": True}, Shape(decoder="retrieval", encoder="embedding", norm="batch"), {}),
    "V4, pairs, three maps": ("v4", {}, Shape(decoder="retrieval2", mode="last"), {}),
    "V4, sum": ("v4", {}, Shape(mode="sum", l_output=3), {"task": "regression"}),
    "V4, first steps": ("v4", {}, Shape(mode="first", l_output=2), {"task": "regression"}),
    "V4, last steps": ("v4", {}, Shape(mode="last", l_output=2), {"task": "regression"}),
    "V4, padding counts": ("v4", {"both": True}, Shape(use_lengths=False, mask_padding=True), {}),
    "V3, scalar norm": ("v3", {"both": True}, Shape(version=3, norm="scalar"), {}),
    "V3, gate and bottleneck": ("v3", {"H": 2}, Shape(version=3, gate=2, bottleneck=2), {}),
    "V2, nothing masked": ("v2", {"both": True}, replace(OLD, prenorm=False, norm="scalar", postact=None), {}),
    "low rank": ("dplr", {"both": True}, Shape(norm="batch"), {}),
    "DSS": (
        "dss",
        {"both": True},
        Shape(version=1, norm="scalar", prenorm=False, postact=None, mask_padding=False),
        {},
    ),
    "DSS, pairs": ("dss", {}, Shape(version=1, norm="batch", decoder="retrieval", mask_padding=False), {}),
}
CASES["low rank, one way"] = ("dplr", {}, Shape(norm="batch"), {})
CASES["V3, plain map"] = ("v3", {}, Shape(version=3, postact=None), {})
PADDED = [
    "V4, batch norm before",
    "V4, layer norm after, heads",
    "V4, pairs",
    "V4, sum",
    "V4, last steps",
    "V4, padding counts",
    "V3, scalar norm",
    "V2, nothing masked",
    "low rank",
    "DSS",
    "DSS, pairs",
]


def made(name: str, seed: int = 0, **around: Any) -> tuple[Family, Any, Arrays, dict[str, Any]]:
    """The family, the PyTorch model, its tensors and their description."""
    kind, layer, shape, said = CASES[name]
    family, make = MADE[kind]
    rng = np.random.default_rng(seed)
    shape = replace(shape, **around)
    depth = 2 if name in PADDED or shape.residual == "D" else 1
    model, arrays = build([make(rng, **layer) for _ in range(depth)], shape, seed)
    keys = ("activation", "mode", "l_output", "use_lengths", "residual")
    said = {key: getattr(shape, key) for key in keys} | said
    said |= {"ff_activation": shape.ff} if shape.ff else {}
    return family, model, arrays, config_of(family, arrays, **said)


def batch(shape: Shape, padded: bool, seed: int = 1) -> tuple[np.ndarray, np.ndarray | None]:
    rng = np.random.default_rng(seed)
    lead = (N,) if shape.decoder == "sequence" else (N, 2)
    if shape.encoder == "embedding":
        x = rng.integers(0, shape.features, (*lead, L)).astype("i4")
    else:
        x = rng.normal(size=(*lead, L, shape.width if shape.encoder == "none" else shape.features)).astype("f4")
    return x, rng.integers(4, L + 1, lead) if padded else None


@pytest.mark.parametrize(("name", "padded"), [(name, name in PADDED) for name in CASES])
def test_forward_is_the_published_model(name: str, padded: bool) -> None:
    family, model, arrays, config = made(name)
    assert detect(infos(arrays)).name == family.name
    x, lengths = batch(model.shape, padded)
    with torch.no_grad():
        expected = model(x, lengths).numpy()
    outputs, inputs = forward_of(family, arrays, config, x, lengths)
    expected = expected if config["mode"] == "sequence" else expected.reshape(N, -1)
    np.testing.assert_allclose(outputs, expected, atol=1e-4)
    for got, seen in zip(inputs, inputs_of(model), strict=True):
        np.testing.assert_allclose(got, seen, atol=1e-4)


@pytest.mark.parametrize("name", ["V4, batch norm before", "V4, pairs", "V4, last steps", "V3, gate and bottleneck"])
def test_what_the_forward_says_about_itself(name: str) -> None:
    family, model, arrays, config = made(name)
    forward = family.forward(infos(arrays), config, layers_of(family, arrays, config))
    assert forward is not None
    pair = model.shape.decoder != "sequence"
    assert forward.layout == ("pair" if pair else "single")
    assert forward.features == model.shape.features
    assert forward.outputs == model.shape.outputs * max(model.shape.l_output, 1)
    assert (forward.task, forward.sequence) == (config["task"], False)
    assert not any(".kernel." in used or used.endswith((".D", "num_batches_tracked")) for used in forward.params)
    assert set(forward.params) == {n for n in arrays if ".kernel." not in n and not n.endswith((".D", "tracked"))}


@pytest.mark.parametrize("prefix", ["net.", "ema.module."])
def test_a_prefix_before_every_name_changes_nothing(prefix: str) -> None:
    family, model, arrays, config = made("V4, batch norm before")
    x, _ = batch(model.shape, False)
    plain, _ = forward_of(family, arrays, config, x)
    prefixed = spell.prefixed(arrays, prefix)
    got, _ = forward_of(family, prefixed, config_of(family, prefixed), x)
    np.testing.assert_array_equal(got, plain)


@pytest.mark.parametrize("name", ["V4, batch norm before", "low rank", "DSS"])
def test_masked_equals_compacted(name: str) -> None:
    family, model, arrays, config = made(name)
    x, lengths = batch(model.shape, True)
    layers, systems = layers_of(family, arrays, config), systems_of(family, arrays, config)
    kept = [some_kept(system, 2) for system in systems]
    forward = family.forward(infos(arrays), config, layers)
    assert forward is not None
    params = {used: arrays[used] for used in forward.params}
    zeroed = [single(masked(system, k)) for system, k in zip(systems, kept)]
    expected, _ = jax.jit(forward.apply)(params, zeroed, x, lengths)

    small = arrays
    for layer, system, k in zip(layers, systems, kept):
        reduction = Reduction(k, keep(system, k))
        small = updated(small, family.rebuild(layer, config, arrays.__getitem__, reduction, 2))
    described = family.rebuilt_config(config)
    after = family_named(described.pop("family", family.name))
    got, _ = forward_of(after, small, config_of(after, small, **described), x, lengths)
    np.testing.assert_allclose(got, expected, atol=2e-5)


def without(arrays: Arrays, *gone: str) -> Arrays:
    return {name: array for name, array in arrays.items() if not name.startswith(gone)}


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a | {"model.layers.0.pool.linear.weight": np.zeros((4, 4), "f4")},
        lambda a: a | {"model.layers.2.layer.mha.weight": np.zeros((4, 4), "f4")},
        lambda a: a | {"encoder.1.pe": np.zeros((16, 4), "f4")},
        lambda a: a | {"model.layers.0.layer.norm.norm.m": np.zeros(1, "f4")},
        lambda a: a | {"model.layers.0.residual.Wx.weight": np.zeros((4, 4), "f4")},
        lambda a: a | {"decoder.1.weight": np.zeros((3, 4), "f4")},
        lambda a: without(a, "decoder."),
        lambda a: without(a, "model.norm.") | {"model.norm.norm.m": np.zeros(1, "f4")},
        lambda a: a | {"decoder.0.output_transform.weight": np.zeros((3, 5), "f4")},
        lambda a: {n.replace("model.layers.1.", "model.layers.3."): v for n, v in a.items()},
        lambda a: {n.replace("model.layers", "model.c_layers"): v for n, v in a.items()},
        lambda a: a | {"model.layers.0.layer.output_linear.0.weight": np.zeros((7, 4), "f4")},
    ],
)
def test_other_names_and_shapes_mean_another_model(change: Any) -> None:
    family, _, arrays, _ = made("V4, batch norm before")
    arrays = change(arrays)
    config = config_of(family, arrays, prenorm=True)
    assert family.forward(infos(arrays), config, layers_of(family, arrays, config)) is None
    assert "mask_padding" not in family.infer(infos(arrays))


@pytest.mark.parametrize(
    ("name", "said", "message"),
    [
        ("V4, batch norm before", {"norm": "layer"}, "norm is layer, but the norms of the model hold weight, bias"),
        ("V4, batch norm before", {"prenorm": False}, "prenorm is false, but a norm after the last block is there"),
        ("V4, batch norm before", {"postact": "gelu"}, "postact is gelu, but the shape of .* is that of a gated map"),
        ("V4, output map alone", {"postact": "auto"}, "an activation that its shape does not tell"),
        ("V4, output map alone", {"postact": "glu"}, "postact is glu, but the shape of .* is not that"),
        ("V4, affine residual", {"residual": "R"}, r"residual is R, but the blocks hold a residual\.affine"),
        ("V4, no skip", {"residual": "A"}, r"residual is A, but the blocks lack a residual\.affine"),
        ("V4, no skip", {"l_output": 2}, "l_output=2 is for a regression with mode last, first or sum"),
        ("V4, pairs", {"mode": "sequence"}, "The head for pairs compares one feature"),
        ("V4, feed-forward", {"ff_activation": "glu"}, r"ff_activation is glu, but the shape of .*ff\.0\.0\.weight"),
        ("V4, gate inside", {"activation": "gelu"}, "takes 4 features, but the layer gives 8 with activation=gelu"),
    ],
)
def test_a_description_that_contradicts_the_tensors_is_refused(name: str, said: dict[str, Any], message: str) -> None:
    family, model, arrays, config = made(name)
    with pytest.raises(UnsupportedModelError, match=message):
        forward_of(family, arrays, {**config, **said}, batch(model.shape, False)[0])


def test_what_the_tensors_prove() -> None:
    family, _, arrays, _ = made("V4, layer norm after, heads")
    assert family.infer(infos(arrays)) == {"bidirectional": False, "prenorm": False, "mask_padding": True}
    family, _, arrays, _ = made("V2, nothing masked")
    assert family.infer(infos(arrays)) == {"bidirectional": True, "prenorm": False, "mask_padding": False}
    family, _, arrays, _ = made("V3, scalar norm")
    assert family.infer(infos(arrays)) == {"bidirectional": True, "prenorm": True}
    family, _, arrays, _ = made("V4, affine residual")
    assert family.infer(infos(arrays))["residual"] == "A"
    family, _, arrays, _ = made("low rank")
    assert family.infer(infos(arrays))["form"] == "s4"
    family, _, arrays, _ = made("DSS, pairs")
    assert family.infer(infos(arrays)) == {"bidirectional": False, "prenorm": True, "norm": "batch"}


@pytest.mark.parametrize("name", ["low rank", "DSS", "V4, pairs"])
def test_the_command_line_prunes_evaluates_and_sweeps(name: str, last: Any, tmp_path: Path) -> None:
    family, model, arrays, config = made(name)
    file, small, data = tmp_path / "model.safetensors", tmp_path / "small.safetensors", tmp_path / "data.npz"
    metadata = {"last.description": json.dumps({"family": family.name, **config})}
    containers.write(file, [TensorSource.of(n, a) for n, a in arrays.items()], metadata=metadata)
    rng = np.random.default_rng(3)
    shape = model.shape
    x = np.concatenate([batch(shape, False, seed)[0] for seed in range(6)])
    lengths = rng.integers(4, L + 1, x.shape[:2] if shape.decoder != "sequence" else len(x))
    with torch.no_grad():
        labels = model(x, lengths).argmax(-1).numpy()
    labels[:3] = (labels[:3] + 1) % shape.outputs
    np.savez(data, x=x, y=labels, lengths=lengths)
    code, out, err = last("eval", file, "--data", data, "--json")
    assert code == 0, err
    assert json.loads(out)["value"] == pytest.approx(9 / 12)
    code, _, err = last("prune", file, "--ratio", "0.3", "--out", small, "-q")
    assert code == 0, err
    code, out, err = last("verify", file, small, "--data", data, "--json")
    assert code == 0, out + err
    code, out, err = last("eval", small, "--data", data, "--json")
    assert code == 0, err
    value = json.loads(out)["value"]
    code, out, err = last("sweep", file, "--ratios", "0,0.3", "--data", data, "--json")
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert [row["value"] for row in rows] == pytest.approx([9 / 12, value])


@pytest.mark.parametrize("name", ["V4, no skip", "low rank, one way", "DSS, pairs", "V4, sum"])
def test_the_model_of_converted_layers_is_the_same(name: str) -> None:
    family, model, arrays, config = made(name)
    x, lengths = batch(model.shape, True)
    expected, _ = forward_of(family, arrays, config, x, lengths)
    changes, described = family.convert(infos(arrays), config, arrays.__getitem__, "s4d")
    converted = updated(arrays, changes)
    s4d = detect(infos(converted))
    assert s4d.name == described.pop("family") == "s4d"
    assert described.items() >= s4d.infer(infos(converted)).items()
    got, _ = forward_of(s4d, converted, described, x, lengths)
    np.testing.assert_allclose(got, expected, atol=2e-4)


def test_options_of_what_the_model_has_not_are_idle() -> None:
    ends = {"head_activation", "ff_activation"}
    for name, idle in {
        "V4, layer norm after, heads": ends,
        "V4, feed-forward": {"head_activation"},
        "V4, pairs": {"ff_activation"},
        "V4, no output map": {*ends, "postact"},
        "DSS, pairs": {"ff_activation"},
    }.items():
        family, _, arrays, _ = made(name)
        assert family.idle(infos(arrays)) == idle, name
    unknown = arrays | {"encoder.1.pe": np.zeros((16, 4), "f4")}
    assert family.idle(infos(unknown)) >= {"mode", "norm", "residual", "prenorm"}
