"""The settings of a run inside a checkpoint: taken where they are clear, offered where they are not, never silently."""

from __future__ import annotations

import argparse
import json
import pickle

import numpy as np
import pytest

from lastcli.errors import UsageError
from lastcli.model.hyperparameters import understand
from lastcli.model.opening import open_checkpoint
from tests.builders.foreign import foreign, importable, omegaconf
from tests.builders.s4d import s4d_model


def pickled(path, *objects, **beside):
    tree = {"model": s4d_model(np.random.default_rng(0)), **beside}
    with importable(*objects):
        path.write_bytes(pickle.dumps(tree, 4))
    return path


def said(checkpoint):
    return {key: setting.value for key, setting in checkpoint.settings.items() if setting.source == "file"}


def holders():
    """The same settings in everything that trainers keep them in, with the objects that are to be importable."""
    tree = {"prenorm": True, "mode": "last", "lr": 0.1}
    config, nodes = omegaconf({"model": {"layer": {"prenorm": True}}, "decoder": {"mode": "last"}})
    dataclass = foreign("train.Config", dict(tree))
    return {
        "dict": ("hyper_parameters", tree, []),
        "Namespace": ("args", argparse.Namespace(**tree), []),
        "omegaconf": ("config", config, nodes),
        "dataclass": ("cfg", dataclass, [dataclass]),
        "nested": ("hparams", {"model": argparse.Namespace(net=tree)}, []),
    }


@pytest.mark.parametrize("kind", holders())
def test_options_by_name_are_taken_from_whatever_holds_them(kind, tmp_path):
    key, value, objects = holders()[kind]
    with open_checkpoint(pickled(tmp_path / "x.pkl", *objects, **{key: value})) as checkpoint:
        assert said(checkpoint) == {"prenorm": True, "mode": "last"}
        (note,) = [note for note in checkpoint.notes if note.startswith("Taken from the settings in the file: ")]
        assert f"prenorm True ({key}/" in note
        assert "--set says otherwise" in note


def test_all_that_is_said_to_last_is_stronger(tmp_path):
    path = pickled(tmp_path / "x.pkl", args={"prenorm": True, "mode": "last"})
    with open_checkpoint(path, flags={"prenorm": "false"}) as checkpoint:
        assert checkpoint.config["prenorm"] is False
        assert said(checkpoint) == {"mode": "last"}
    (tmp_path / "x.json").write_text(json.dumps({"family": "s4d", "mode": "pool"}))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.settings["mode"].source == "sidecar"
        assert said(checkpoint) == {"prenorm": True}


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": {"mode": "last"}, "callbacks": {"mode": "last"}},
        {"mode": "min", "prenorm": "True"},
        {"prenorm": 1, "eps": 1e-8},
        {"mode": "last", "decoder": {"mode": "pool"}},
    ],
    ids=["not of a model", "no value of the option", "another type, a common word", "two places differ"],
)
def test_what_is_not_clear_is_not_taken(settings, tmp_path):
    with open_checkpoint(pickled(tmp_path / "x.pkl", args=settings)) as checkpoint:
        assert said(checkpoint) == {}
        assert not any("Taken from" in note for note in checkpoint.notes)
        if "decoder" in settings:
            assert "mode last (args/mode) and pool (args/decoder/mode); none of them is taken" in checkpoint.notes[0]


def test_sizes_are_offered_by_inspect(tmp_path, last):
    path = pickled(tmp_path / "x.pkl", args=argparse.Namespace(d_state=10, pre_norm=True, lr=0.1))
    code, out, _ = last("inspect", path, "--json")
    assert code == 0
    notes = json.loads(out)["notes"]
    assert (
        "The settings in the file also say args/d_state 10, args/pre_norm True; nothing is taken from these." in notes
    )


def test_tensors_and_a_spelling_of_the_family():
    from lastcli.families import family_named

    family = family_named("s4")
    found = understand(family, {"cfg/layer/disc": "zoh", "cfg/bidirectional": True}, (), {"bidirectional": False})
    assert found.values == {"discretization": ("zoh", "cfg/layer/disc")}
    assert "bidirectional True (cfg/bidirectional), but the tensors show False, which counts" in found.notes[1]


def test_other_containers_say_it_too(tmp_path):
    from flax import serialization

    tree = {"model": s4d_model(np.random.default_rng(0))}
    (tmp_path / "x.msgpack").write_bytes(serialization.msgpack_serialize({**tree, "config": {"prenorm": True}}))
    with open_checkpoint(tmp_path / "x.msgpack") as checkpoint:
        assert said(checkpoint) == {"prenorm": True}


def test_suggest_and_convert_choose_the_model_as_other_commands_do(tmp_path, last):
    torch = pytest.importorskip("torch")
    # a critic has tensors, but no layer; the model's layers carry names of their own
    names = {"log_dt": "log_delta", "A_imag": "lambda_im", "log_A_real": "log_lambda_re"}
    own = {}
    for name, array in s4d_model(np.random.default_rng(0)).items():
        path, _, leaf = name.rpartition(".")
        own[f"{path}.{names.get(leaf, leaf)}"] = torch.from_numpy(array)
    torch.save({"callback": {"best": torch.ones(1)}, "model": own}, tmp_path / "x.pt")
    code, out, _ = last("inspect", tmp_path / "x.pt", "--suggest")
    assert code == 0
    assert "s4_layers" in out
    known = {name: torch.from_numpy(array) for name, array in s4d_model(np.random.default_rng(0)).items()}
    torch.save({"callback": {"best": torch.ones(1)}, "model": known}, tmp_path / "y.pt")
    assert last("convert", tmp_path / "y.pt", tmp_path / "y.safetensors")[0] == 0
    torch.save({"a": {"w": torch.ones(1)}, "b": {"w": torch.ones(1)}}, tmp_path / "z.pt")
    code, _, said = last("convert", tmp_path / "z.pt", tmp_path / "z.safetensors")
    assert code == UsageError.exit_code
    assert "'a', 'b'" in said


def test_numbers_and_texts_are_taken_as_the_options_are():
    from lastcli.families import family_named

    family = family_named("s5")
    assert understand(family, {"cfg/step_rescale": 2}, (), {}).values == {"step_rescale": (2.0, "cfg/step_rescale")}
    agreed = understand(family, {"cfg/bidirectional": True}, (), {"bidirectional": True})
    assert (agreed.values, agreed.contradicted) == ({}, ())
    # text that could be anything is offered
    free = understand(family_named("mamba2"), {"cfg/step_limits": "0,1"}, (), {})
    assert (free.values, free.offered) == ({}, ("cfg/step_limits 0,1",))
