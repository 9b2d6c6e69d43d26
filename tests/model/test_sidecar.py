"""Which files beside a checkpoint describe it, and which merely stand there."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lastcli import containers
from lastcli.errors import InputError
from lastcli.model.opening import open_checkpoint
from tests.conftest import write_s5

METRICS = {"epoch": 3, "val_acc": 0.98, "last": {"loss": 0.1}}
HYDRA = "model: &m\n  name: s5\nother: *m\ndefaults:\n  - _self_\nseed: !!int '3'\n"


@pytest.fixture
def plain(tmp_path):
    """A checkpoint that says nothing of itself."""
    return write_s5(tmp_path / "m.safetensors", describe=False)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.json", json.dumps(METRICS)),
        ("m.json", ""),
        ("m.json", "[1, 2]"),
        ("m.json", '{"loss": [1.0, 0.5'),
        ("m.json", '{"loss": 1, "loss": 2}'),
        ("m.json", json.dumps({"losses": list(range(300_000))})),
        ("m.yaml", HYDRA),
        ("m.yml", "a: b: c"),
        ("config.json", '{"model_type": "bert", "hidden_size": 8}'),
        ("config.json", "{"),
    ],
)
def test_what_others_leave_beside_a_checkpoint_makes_it_no_less_readable(plain, name, text):
    (plain.parent / name).write_text(text)
    with open_checkpoint(plain) as checkpoint:
        assert checkpoint.description.beside.path is None
        assert checkpoint.notes == ()


@pytest.mark.parametrize("suffix", [".safetensors", ".msgpack", ".pt", ""])
@pytest.mark.parametrize("verb", ["prune", "inspect", "eval"])
def test_results_printed_into_the_name_of_the_sidecar(tiny, data, last, suffix, verb):
    if suffix == ".pt":
        pytest.importorskip("torch")
    out = tiny.parent / f"small{suffix}"
    code, printed, err = last("prune", tiny, "--ratio", "0.3", "--out", out, "--json", "-q")
    assert code == 0, err
    if verb != "prune":
        code, printed, err = last(verb, out, "--json", "-q", *(("--data", data) if verb == "eval" else ()))
        assert code == 0, err
    assert json.loads(printed)["schema"] == f"last.{verb}/1"
    beside = out.with_suffix(".json")
    if not beside.exists():
        beside.write_text(printed)
        assert last("eval", out, "--data", data)[0] == 0
        assert last("verify", tiny, out, "--data", data)[0] == 0
        (tiny.parent / "tiny.json").write_text(printed)
        assert last("eval", tiny, "--data", data)[0] == 0


def test_the_next_file_counts_where_the_first_describes_nothing(plain):
    (plain.parent / "m.json").write_text(json.dumps(METRICS))
    (plain.parent / "m.yaml").write_text("family: s5\nstep_rescale: 2\n")
    with open_checkpoint(plain) as checkpoint:
        assert checkpoint.description.beside.path == plain.parent / "m.yaml"
        assert checkpoint.settings["step_rescale"].value == 2.0


@pytest.mark.parametrize("damage", [lambda text: text[:-5], lambda text: text.replace('"last"', '"last', 1)])
def test_a_damaged_sidecar_of_ours_is_an_error(tmp_path, damage):
    write_s5(tmp_path / "t.safetensors")
    with containers.open_reader(tmp_path / "t.safetensors") as reader:
        sources = [containers.TensorSource.of(name, reader.read(name)) for name in reader.tensors]
        containers.write(tmp_path / "x.msgpack", sources, metadata=reader.metadata)
    beside = tmp_path / "x.json"
    beside.write_text(damage(beside.read_text()))
    with pytest.raises(InputError, match=r"x\.json"):
        open_checkpoint(tmp_path / "x.msgpack")


def test_a_sidecar_of_ours_without_a_family_still_counts(tmp_path):
    containers.write(tmp_path / "x.msgpack", [containers.TensorSource.of("w", np.ones(2))], metadata={"k": "v"})
    assert "family" not in json.loads((tmp_path / "x.json").read_text())
    with containers.open_reader(tmp_path / "x.msgpack") as reader:
        assert reader.metadata["k"] == "v"


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("config.json", {"model_type": "s5", "activation": "gelu", "mode": "last", "hidden_size": 4}),
        ("m.json", {"activation": "gelu", "mode": "last"}),
    ],
)
def test_a_description_without_a_family_is_mentioned_in_one_note(plain, last, name, document):
    (plain.parent / name).write_text(json.dumps(document))
    _, out, _ = last("inspect", plain, "--json")
    notes = [note for note in json.loads(out)["notes"] if name in note]
    assert len(notes) == 1
    assert f"{name} beside the checkpoint says activation gelu, mode last, but names no family" in notes[0]
    assert "hidden_size" not in notes[0]
    assert json.loads(out)["config"]["mode"] == {"value": "pool", "source": "assumed"}
    _, _, err = last("score", plain)
    assert err.count(name) == 1
