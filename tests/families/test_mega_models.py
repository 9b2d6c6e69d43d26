from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from lastcli import containers
from lastcli.containers.base import TensorSource
from lastcli.engine.system import Reduction
from lastcli.errors import InputError, UnsupportedModelError
from lastcli.families import mega_model
from lastcli.families.base import Forward
from lastcli.families.mega import Mega
from tests.builders.named import Arrays, infos
from tests.families import mega_reference as reference
from tests.families.rebuilding import (
    DOCS,
    config_of,
    forward_of,
    keep,
    layers_of,
    masked,
    rebuilt,
    single,
    some_kept,
    systems_of,
)

FAMILY = Mega()
RNG = np.random.default_rng(1)
TOKENS = RNG.integers(2, 9, (3, 11))
NUMBERS = RNG.normal(size=(3, 11, 1)).astype("f4")


def described(arrays: Arrays, **changes: Any) -> Forward | None:
    config = config_of(FAMILY, arrays, **changes)
    return FAMILY.forward(infos(arrays), config, layers_of(FAMILY, arrays, config))


def outputs_of(arrays: Arrays, x: np.ndarray, lengths: np.ndarray | None = None, **changes: Any) -> np.ndarray:
    return forward_of(FAMILY, arrays, config_of(FAMILY, arrays, **changes), x, lengths)[0]


def expect(got: np.ndarray, wanted: list[np.ndarray]) -> None:
    np.testing.assert_allclose(got, np.stack(wanted), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("build", "options"),
    [
        ({"kind": "layernorm", "prenorm": False, "count": 2}, {}),
        ({"kind": "scalenorm", "prenorm": False, "embed_norm": True, "depth": 2}, {"classifier_activation": "relu"}),
        ({"seed": 1, "kind": "rmsnorm", "bias": "rotary", "feed": False, "depth": 0}, {"attention": "relu2"}),
        ({"kind": "batchnorm", "both": False}, {"activation": "gelu_accurate", "truncation": 4}),
        (
            {"kind": "layernorm"},
            {"gain": "alpha", "shift": True, "truncation": 5, "attention": "laplace", "pooling": "first"},
        ),
    ],
)
def test_classifiers_of_tokens(build: dict[str, Any], options: dict[str, Any]) -> None:
    arrays = reference.fairseq(**build)
    renamed = {"classifier_activation": "classifier"}
    model = reference.Reference(
        arrays, prenorm=build.get("prenorm", True), **{renamed.get(key, key): value for key, value in options.items()}
    )
    expect(outputs_of(arrays, TOKENS, **options), [model(x) for x in TOKENS])


@pytest.mark.parametrize("kind", ["batchnorm", "rmsnorm"])
def test_classifiers_of_real_numbers_take_the_laplace_function(kind: str) -> None:
    arrays = reference.fairseq(vocabulary=0, kind=kind)
    model = reference.Reference(arrays, attention="laplace")
    x = NUMBERS if kind == "rmsnorm" else NUMBERS[..., 0]
    expect(outputs_of(arrays, x), [model(x[:, 0]) for x in NUMBERS])


@pytest.mark.parametrize(
    ("attention", "chunk", "count"), [("softmax", None, 2), ("softmax", 4, 1), ("laplace", 4, 2), ("relu2", None, 1)]
)
def test_padding_reaches_nothing(attention: str, chunk: int | None, count: int) -> None:
    """Both by lengths and by the token of padding: as if each sequence were alone."""
    arrays = reference.fairseq(reach=chunk or 16, count=count)
    lengths, x = np.array([6, 11, 1]), TOKENS.copy()
    model = reference.Reference(arrays, attention=attention, chunk=chunk)
    alone = [model(row[:length]) for row, length in zip(x, lengths)]
    expect(outputs_of(arrays, x, lengths, attention=attention), alone)
    x[np.arange(11) >= lengths[:, None]] = 1
    expect(outputs_of(arrays, x, attention=attention), alone)


def test_without_a_token_of_padding_token_1_counts() -> None:
    arrays = reference.fairseq()
    x = np.concatenate([TOKENS, np.ones((3, 2), int)], axis=1)
    model = reference.Reference(arrays)
    expect(outputs_of(arrays, x, padding_idx=-1), [model(row) for row in x])
    expect(outputs_of(arrays, x), [model(row) for row in TOKENS])


def test_one_hot_inputs_are_tokens() -> None:
    arrays = reference.fairseq()
    expect(outputs_of(arrays, np.eye(9, dtype="f4")[TOKENS]), [reference.Reference(arrays)(x) for x in TOKENS])


def test_two_documents_the_second_in_front() -> None:
    arrays = reference.fairseq(pair=True)
    forward = described(arrays)
    assert forward is not None
    assert forward.layout == "pair"
    x, lengths = np.stack([TOKENS, TOKENS[::-1]], axis=1), np.array([[11, 7], [5, 11], [11, 11]])
    model = reference.Reference(arrays)
    wanted = [model(*(row[i, : length[i]] for i in (0, 1))) for row, length in zip(x, lengths)]
    expect(outputs_of(arrays, x, lengths), wanted)


def test_chunks_of_a_rotary_bias_are_said_and_those_of_a_table_are_seen() -> None:
    arrays = reference.fairseq(bias="rotary", vocabulary=0)
    model = reference.Reference(arrays, attention="laplace", chunk=5)
    expect(outputs_of(arrays, NUMBERS[:, :10], chunk_size=5), [model(x[:10, 0]) for x in NUMBERS])
    with pytest.raises(InputError, match="11 steps cannot be cut into attention chunks of 5"):
        outputs_of(arrays, NUMBERS, chunk_size=5)
    table = reference.fairseq(reach=4)
    with pytest.raises(UnsupportedModelError, match=r"chunk_size is 5, but .* is for 4 steps"):
        described(table, chunk_size=5)
    with pytest.raises(UnsupportedModelError, match="reaches over 4 steps, not 11"):
        outputs_of(table, TOKENS, chunk_size=-1)


def test_the_published_truncation_is_assumed_for_fairseq(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mega_model._LRA_TRUNCATION == 1024
    monkeypatch.setattr(mega_model, "_LRA_TRUNCATION", 3)
    arrays = reference.fairseq(bias="rotary")
    cut, whole = (reference.Reference(arrays, truncation=lags) for lags in (3, None))
    assert np.abs(cut(TOKENS[0]) - whole(TOKENS[0])).max() > 1e-3
    expect(outputs_of(arrays, TOKENS), [cut(x) for x in TOKENS])
    expect(outputs_of(arrays, TOKENS, truncation=0), [whole(x) for x in TOKENS])


@pytest.mark.parametrize(
    ("build", "options"),
    [
        ({}, {}),
        ({"head": "masked", "kind": "rmsnorm", "types": True, "count": 2}, {"prenorm": False, "ffn_prenorm": True}),
        ({"head": "tokens", "kind": "none", "feed": False, "both": False}, {"norm": "layernorm", "truncation": 3}),
        ({"head": "none", "bias": "simple"}, {"attention": "laplace", "chunk_size": 4}),
    ],
)
def test_encoders_of_transformers(build: dict[str, Any], options: dict[str, Any]) -> None:
    arrays = reference.transformers(**build)
    own = {{"chunk_size": "chunk"}.get(key, key): value for key, value in options.items()}
    model, lengths = reference.Reference(arrays, **own), np.array([5, 11, 8])
    for row, x, length in zip(outputs_of(arrays, TOKENS, lengths, **options), TOKENS, lengths):
        wanted = model(x[:length])
        np.testing.assert_allclose(row[:length] if wanted.ndim == 2 else row, wanted, atol=2e-5, rtol=1e-4)


def test_transformers_reads_a_token_of_padding_as_any_other() -> None:
    arrays, x = reference.transformers(), np.ones((2, 7), int)
    expect(outputs_of(arrays, x), [reference.Reference(arrays)(row) for row in x])


def test_half_precision_is_computed_in_float32() -> None:
    arrays = {name: a.astype("f2") if a.dtype.kind == "f" else a for name, a in reference.fairseq().items()}
    model = reference.Reference(arrays)
    expect(outputs_of(arrays, TOKENS), [model(x) for x in TOKENS])


def test_layer_inputs_are_what_the_systems_get() -> None:
    """The first D channels forwards, the others backwards from the last true step; zeros in the padding."""
    arrays = reference.fairseq(kind="batchnorm", count=2)
    lengths = np.array([6, 11, 9])
    _, inputs = forward_of(FAMILY, arrays, config_of(FAMILY, arrays), TOKENS, lengths)
    assert [u.shape for u in inputs] == [(3, 11, 8)] * 2
    model = reference.Reference(arrays)
    for u, x, length in zip(np.asarray(inputs[0]), TOKENS, lengths):
        h = model.t["encoder.encoder.embed_tokens.embed.weight"][x[:length]]
        h = model.norm("encoder.encoder.layers.0.mega_layer.norm", h)
        np.testing.assert_allclose(u[:length], np.concatenate([h, h[::-1]], axis=1), atol=1e-5)
        assert not u[length:].any()


@pytest.mark.parametrize("options", [{}, {"shift": True, "truncation": 4}])
def test_masked_equals_compacted(options: dict[str, Any]) -> None:
    import jax

    arrays = reference.fairseq()
    config = config_of(FAMILY, arrays, **options)
    layers, systems = layers_of(FAMILY, arrays, config), systems_of(FAMILY, arrays, config)
    forward = FAMILY.forward(infos(arrays), config, layers)
    assert forward is not None
    kept = [some_kept(system, 2, seed) for seed, system in enumerate(systems)]
    small = rebuilt(FAMILY, arrays, config, [Reduction(k, keep(s, k)) for k, s in zip(kept, systems)])
    gone = [single(masked(system, k)) for system, k in zip(systems, kept)]
    params = {name: arrays[name] for name in forward.params}
    outputs = np.asarray(jax.jit(forward.apply)(params, gone, TOKENS, None)[0])
    expect(outputs, [reference.Reference(small, **options)(x) for x in TOKENS])
    expect(outputs_of(small, TOKENS, **options), list(outputs))


def test_what_the_tensors_show() -> None:
    post = reference.fairseq(prenorm=False, kind="scalenorm", classes=1)
    shown = {"norm": "scalenorm", "prenorm": False, "ffn_prenorm": False, "task": "regression"}
    assert FAMILY.infer(infos(post)) == shown
    assert FAMILY.infer(infos(reference.fairseq(kind="batchnorm"))) == {
        "norm": "batchnorm",
        "prenorm": True,
        "ffn_prenorm": True,
    }
    assert FAMILY.infer(infos(reference.transformers(kind="none"))) == {"pooling": "first"}
    assert FAMILY.infer(infos(reference.transformers(head="none"))) == {"norm": "scalenorm", "task": "regression"}


def test_what_the_forward_says_about_itself() -> None:
    text, image = described(reference.fairseq(kind="batchnorm")), described(reference.fairseq(vocabulary=0))
    filler, bare = (described(reference.transformers(head=head)) for head in ("masked", "none"))
    assert text is not None
    assert image is not None
    assert filler is not None
    assert bare is not None
    assert (text.features, text.outputs, text.task, text.layout) == (9, 3, "classification", "single")
    assert not text.sequence
    assert image.features == 1
    assert (filler.outputs, filler.sequence) == (9, True)
    assert (bare.outputs, bare.sequence, bare.task) == (4, True, "regression")
    assert not any(".move." in name or "num_batches" in name for name in text.params)
    assert not any("_float_tensor" in name or "pooler" in name for name in bare.params)


@pytest.mark.parametrize("prefix", ["encoder.encoder.", "encoder.", ""])
def test_prefixes_do_not_matter(prefix: str) -> None:
    wanted, got = described(reference.fairseq()), described(reference.fairseq(prefix=prefix))
    whole = described({f"model.{name}": a for name, a in reference.fairseq(prefix=prefix).items()})
    assert wanted is not None
    for forward, start in ((got, prefix), (whole, f"model.{prefix}")):
        assert forward is not None
        names = [name.removeprefix(start).removeprefix("model.") for name in forward.params]
        assert sorted(names) == sorted(name.removeprefix("encoder.encoder.") for name in wanted.params)


STRANGERS = [
    "encoder.encoder.layers.0.cross_attn.k_proj.weight",
    "encoder.encoder.layers.1.mega_layer.qk_weight",
    "encoder.encoder.layers.0.mega_layer.norm.norm.offset",
    "encoder.encoder.embed_positions.weight",
    "lm_head.weight",
]


@pytest.mark.parametrize("stranger", STRANGERS)
def test_an_unknown_tensor_means_an_unknown_model(stranger: str) -> None:
    arrays = reference.fairseq(count=2) | {stranger: np.zeros((2, 6), "f4")}
    assert described(arrays) is None
    assert FAMILY.infer(infos(arrays)) == {}


@pytest.mark.parametrize(
    "gone",
    [
        "encoder.encoder.layers.1.mega_layer.beta",
        "encoder.encoder.layers.1.nffn.fc2.bias",
        "encoder.encoder.layers.0.mega_layer.norm.norm.weight",
        "encoder.encoder.embed_tokens.embed.weight",
        "classifier.0.0.bias",
        "sentence_projection_layer.weight",
    ],
)
def test_a_missing_tensor_means_an_unknown_model(gone: str) -> None:
    arrays = reference.fairseq(count=2)
    del arrays[gone]
    assert described(arrays) is None


def test_layers_of_two_kinds_mean_an_unknown_model() -> None:
    arrays, other = reference.fairseq(count=2), reference.fairseq(count=2, bias="rotary")
    bare = {name: a for name, a in arrays.items() if "layers.1.nffn" not in name}
    mixed = {name: a for name, a in arrays.items() if "layers.1.mega_layer.rel_pos" not in name}
    mixed |= {name: a for name, a in other.items() if "layers.1.mega_layer.rel_pos" in name}
    assert described(arrays) is not None
    assert described(bare) is None
    assert described(mixed) is None


def test_models_that_look_alike_are_not_taken_for_encoders() -> None:
    assert described(reference.transformers(head="none", both=False)) is None  # as likely a decoder
    causal = {name.replace("mlm_head", "lm_head"): a for name, a in reference.transformers(head="masked").items()}
    assert described(causal) is None
    choice = reference.transformers(head="tokens") | {"mega.pooler.dense.weight": np.zeros((4, 4), "f4")}
    assert described(choice) is None
    swapped = {name.replace("qk_bias", "beta"): a for name, a in reference.transformers().items()}
    assert described(swapped) is None
    flat = reference.fairseq()
    flat["encoder.encoder.layers.0.mega_layer.h_proj.weight"] = np.zeros(20, "f4")
    assert described(flat) is None


@pytest.mark.parametrize(
    ("name", "shape"),
    [("mega_layer.v_proj.weight", (5, 3)), ("nffn.fc2.weight", (4, 6)), ("mega_layer.gamma", (2, 5))],
)
def test_shapes_that_contradict_each_other_are_refused(name: str, shape: tuple[int, ...]) -> None:
    arrays = reference.fairseq(count=2)
    arrays[f"encoder.encoder.layers.1.{name}"] = np.zeros(shape, "f4")
    with pytest.raises(UnsupportedModelError, match=f"{name} has shape"):
        described(arrays)


def test_a_batch_norm_without_statistics_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="no running means"):
        described(reference.transformers(kind="none"), norm="batchnorm")


def test_the_documented_description_and_options_are_the_familys() -> None:
    text = (DOCS / "families/mega.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| .* \| (.*) \|$", text, flags=re.MULTILINE)
    keys = {key for keys, _ in table for key in re.findall(r"\w+", keys)}
    options = {option.key: option for option in FAMILY.options}
    assert keys == set(options)
    for named, default in table:
        for key in re.findall(r"\w+", named):
            assert default.startswith(f"`{str(options[key].default).lower()}`"), key
    (found,) = re.findall(r"```json\n(.*?)```", text, flags=re.DOTALL)
    description = json.loads(found)
    assert description.pop("family") == "mega"
    arrays = reference.fairseq(vocabulary=0, reach=4096)
    assert described(arrays, **description) is not None


def test_from_the_file_to_the_sweep(last, tmp_path) -> None:
    arrays = reference.fairseq()
    path, data = tmp_path / "mega.safetensors", tmp_path / "data.npz"
    containers.write(path, [TensorSource.of(name, array) for name, array in arrays.items()], metadata={})
    x, lengths = RNG.integers(2, 9, (24, 11)), RNG.integers(3, 12, 24)
    x[np.arange(11) >= lengths[:, None]] = 1
    model = reference.Reference(arrays)
    y = np.array([model(row[:length]).argmax() for row, length in zip(x, lengths)])
    y[:4] = (y[:4] + 1) % 3
    np.savez(data, x=x, y=y, lengths=lengths)
    code, out, err = last("eval", path, "--data", data, "--json")
    assert code == 0, err
    assert json.loads(out)["value"] == pytest.approx(20 / 24)
    code, out, err = last(
        "sweep", path, "--data", data, "--ratios", "0,0.5", "--refit", "calibrated", "--calibration", data, "--json"
    )
    assert code == 0, err
    assert [row["ratio"] for row in json.loads(out)["rows"]] == [0, 0.5]
    small = tmp_path / "small.safetensors"
    code, _, err = last("prune", path, "--ratio", "0.5", "--layout", "uniform", "--out", small, "-q")
    assert code == 0, err
    code, out, err = last("verify", path, small, "--json")
    assert code == 0, out
