from __future__ import annotations

import json
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
from lastcli.families.s4.models.sequence import _encode
from lastcli.families.s4.models.sequence_names import find_sequence_model
from tests.builders import s4 as spell
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

torch = pytest.importorskip("torch")

from tests.upstream.s4_models import L, batch, made  # noqa: E402


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
        lambda a: {n.replace("output_linear.0.weight", "output_linear.0.weight_v"): v for n, v in a.items()},
        lambda a: without(a, "model.layers.0.norm.norm.running_"),
        lambda a: a | {"model.layers.0.layer.input_linear.weight": np.zeros((4, 5), "f4")},
        lambda a: a | {"model.layers.0.residual.affine": np.zeros(3, "f4")},
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
        ("V4, no output map", {"activation": "glu"}, "gives 2 features to a model of 4 without an output map"),
        ("V4, gate inside", {"activation": "gelu"}, "takes 4 features, but the layer gives 8 with activation=gelu"),
    ],
)
def test_a_description_that_contradicts_the_tensors_is_refused(name: str, said: dict[str, Any], message: str) -> None:
    family, model, arrays, config = made(name)
    with pytest.raises(UnsupportedModelError, match=message):
        forward_of(family, arrays, {**config, **said}, batch(model.shape, False)[0])


def test_features_that_no_bottleneck_makes_fewer_are_refused() -> None:
    family, model, arrays, config = made("V3, gate and bottleneck")
    wide = {name: a for name, a in arrays.items() if ".input_linear." not in name}
    with pytest.raises(UnsupportedModelError, match="A layer has 2 channels, but 4 features reach it"):
        forward_of(family, wide, config, batch(model.shape, False)[0])


def test_weights_of_tokens_are_embedded_too() -> None:
    """What two models are compared on where there is no data: no whole numbers."""
    family, model, arrays, config = made("V4, tokens")
    names = find_sequence_model(infos(arrays), [layer.name for layer in layers_of(family, arrays, config)])
    tokens = batch(model.shape, False)[0]
    one_hot = np.eye(7, dtype="f4")[tokens]
    np.testing.assert_allclose(_encode(names, arrays, one_hot), _encode(names, arrays, tokens), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "postact"),
    [("V4, batch norm before", "glu"), ("V3, plain map", "none"), ("V4, output map alone", None)],
)
def test_what_follows_the_output_maps_is_settled_where_shapes_tell(name: str, postact: str | None) -> None:
    family, _, arrays, config = made(name)
    assert family.settled(infos(arrays), config).get("postact") == (postact and (postact, "assumed"))


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


@pytest.mark.parametrize("name", ["low rank", "DSS", "V4, pairs", "V0, batch norm after"])
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
