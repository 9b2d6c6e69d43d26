"""A folder as transformers leaves it: `config.json` read, a tied head found, both written again for fewer states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lastcli.containers.atomic import Stage
from lastcli.engine.embedding import as_precision
from lastcli.errors import OutputError
from lastcli.model.opening import open_checkpoint
from tests.containers.samples import contents, put, same_bits
from tests.upstream import mega as reference

CONFIG: dict[str, Any] = {
    "architectures": ["MegaForMaskedLM"],
    "model_type": "mega",
    "activation": "gelu",
    "attention_activation": "laplace",
    "bidirectional": True,
    "use_chunking": True,
    "chunk_size": 4,
    "ema_projection_size": 3,
    "normalization_type": "scalenorm",
    "normalize_before_mega": False,
    "normalize_before_ffn": True,
    "truncation": 3,
    "hidden_size": 4,
    "id2label": {"0": "ä"},
}
TOKENS = np.random.default_rng(0).integers(2, 9, (3, 8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A masked language model of two layers, its head tied to the embedding."""
    arrays = reference.transformers(head="masked", count=2)
    arrays["mega.embedding_layer.word_embeddings.weight"] = arrays.pop("mlm_head.weight")
    (tmp_path / "mlm").mkdir()
    put(tmp_path / "mlm" / "model.safetensors", arrays, {"format": "pt"})
    (tmp_path / "mlm" / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path / "mlm"


def outputs(path: Path) -> np.ndarray:
    with open_checkpoint(path) as checkpoint:
        systems = tuple(as_precision(system, np.float32) for system in checkpoint.systems)
        found = checkpoint.require_forward().apply(checkpoint.params, systems, TOKENS, None)
        return np.asarray(found[0])


def by_definition(arrays: dict[str, np.ndarray]) -> np.ndarray:
    arrays = arrays | {"mlm_head.weight": arrays["mega.embedding_layer.word_embeddings.weight"]}
    said = {"prenorm": False, "ffn_prenorm": True, "activation": "gelu", "attention": "laplace", "chunk": 4}
    model = reference.Reference(arrays, **said, truncation=3)
    return np.stack([model(x) for x in TOKENS])


def test_the_model_is_what_the_config_says(folder: Path) -> None:
    np.testing.assert_allclose(outputs(folder), by_definition(contents(folder)), atol=2e-5, rtol=1e-4)
    with open_checkpoint(folder) as checkpoint:
        told = {key: setting.value for key, setting in checkpoint.settings.items() if setting.source == "sidecar"}
        assert told == {
            "gain": "delta", "bidirectional": True, "causal": "false", "norm": "scalenorm", "prenorm": False,
            "ffn_prenorm": True, "activation": "gelu", "attention": "laplace", "chunk_size": 4, "truncation": 3,
        }  # fmt: skip
        assert checkpoint.notes == ()


def test_what_is_not_in_it_has_the_defaults_of_its_class(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "mega"}')
    with open_checkpoint(folder) as checkpoint:
        config = checkpoint.config
    assert (config["attention"], config["chunk_size"], config["truncation"]) == ("softmax", -1, 0)
    assert (config["prenorm"], config["ffn_prenorm"], config["causal"]) == (True, True, "false")


def test_a_decoder_is_not_computed(folder: Path, last: Any) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | {"is_decoder": True}))
    np.savez(folder.parent / "d.npz", x=TOKENS, y=np.zeros(3, int))
    code, _, err = last("eval", folder, "--data", folder.parent / "d.npz")
    assert code == 4
    assert "causal (is_decoder)" in err


def test_a_config_that_contradicts_the_tensors_is_refused(folder: Path, last: Any) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | {"bidirectional": False}))
    code, _, err = last("inspect", folder)
    assert code == 3
    assert "config.json: bidirectional is False, but the tensors show True" in err


@pytest.mark.parametrize("shards", [False, True])
def test_it_is_written_with_the_tensors(folder: Path, last: Any, tmp_path: Path, shards: bool) -> None:
    small = tmp_path / "small"
    out = small if shards else small / "model.safetensors"
    if not shards:
        small.mkdir()
    options = ("--layout", "uniform", "--out", out, *(("--shard-size", "2kB") if shards else ()))
    code, _, err = last("prune", folder, "--states", 32, *options)
    assert code == 0, err
    assert json.loads((small / "config.json").read_text()) == CONFIG | {"ema_projection_size": 2}
    arrays = contents(small)
    assert arrays["mega.layers.1.mega_layer.ema_gate.damping_factor"].shape == (8, 2, 1)
    np.testing.assert_allclose(outputs(small), by_definition(arrays), atol=2e-5, rtol=1e-4)
    assert last("verify", folder, small)[0] == 0
    # written over, and converted with its config
    assert last("prune", folder, "--states", 16, *options, "--force")[0] == 0
    assert json.loads((small / "config.json").read_text())["ema_projection_size"] == 1
    assert last("convert", small, tmp_path / "again", "--shard-size", "1kB")[0] == 0
    assert json.loads((tmp_path / "again" / "config.json").read_text())["ema_projection_size"] == 1


def test_a_note_says_what_it_cannot_hold_or_where_it_has_no_place(folder: Path, last: Any, tmp_path: Path) -> None:
    code, out, err = last("prune", folder, "--states", 40, "--out", tmp_path / "a.safetensors", "--json")
    assert code == 0, err
    assert not (tmp_path / "config.json").exists()
    assert any(note.startswith("config.json is not written") for note in json.loads(out)["notes"])
    (tmp_path / "b").mkdir()
    _, out, _ = last("prune", folder, "--states", 40, "--out", tmp_path / "b" / "model.safetensors", "--json")
    sizes = [layer["states"] for layer in json.loads(out)["layers"]]
    assert len(set(sizes)) == 2
    assert any("--layout padded or uniform" in note for note in json.loads(out)["notes"])
    assert json.loads((tmp_path / "b" / "config.json").read_text())["ema_projection_size"] == max(sizes)


def test_the_config_of_another_model_is_not_replaced_unasked(folder: Path, last: Any, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.json").write_text('{"mine": 1}')
    code, _, err = last("prune", folder, "--states", 16, "--out", tmp_path / "b" / "model.safetensors")
    assert code == 5
    assert "config.json says something else" in err
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["config.json"]


def test_where_the_last_step_fails_both_are_as_before(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model.safetensors"
    old, new = {"w": np.zeros(2)}, {"w": np.ones(2)}
    put(out, old, config='{"a": 1}\n')

    def fail(self: Stage) -> None:
        raise OSError("no")

    monkeypatch.setattr(Stage, "_place", fail)
    with pytest.raises(OutputError):
        put(out, new, config='{"a": 2}\n', force=True)
    assert (tmp_path / "config.json").read_text() == '{"a": 1}\n'
    same_bits(contents(out), old)
