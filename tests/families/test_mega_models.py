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
from lastcli.families.mega import model as mega_model
from lastcli.families.mega.family import Mega
from tests.builders.named import Arrays, infos
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
from tests.families.test_mega_names import described
from tests.upstream import mega as reference

FAMILY = Mega()
RNG = np.random.default_rng(1)
TOKENS = RNG.integers(2, 9, (3, 11))
NUMBERS = RNG.normal(size=(3, 11, 1)).astype("f4")


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
