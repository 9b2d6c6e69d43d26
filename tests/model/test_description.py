import json

import numpy as np
import pytest

from lastcli import containers
from lastcli.containers.base import TensorSource
from lastcli.errors import InputError, UnsupportedModelError, UsageError
from lastcli.families.mega.family import Mega
from lastcli.model.description import Setting, parse_settings
from lastcli.model.opening import open_checkpoint
from tests.builders.named import infos
from tests.builders.s4d import s4d_model
from tests.conftest import write_s5
from tests.upstream.mega import transformers


def sources(checkpoint):
    return {key: (setting.value, setting.source) for key, setting in checkpoint.settings.items()}


def test_every_source_beats_the_ones_below_it(tmp_path):
    path = write_s5(tmp_path / "m.safetensors", describe=False)
    assert sources(open_checkpoint(path))["step_rescale"] == (1.0, "assumed")
    assert sources(open_checkpoint(path))["norm"] == ("batch", "tensors")
    (tmp_path / "m.json").write_text(json.dumps({"family": "s5", "step_rescale": 2}))
    assert sources(open_checkpoint(path))["step_rescale"] == (2.0, "sidecar")
    described = write_s5(tmp_path / "n.safetensors")
    (tmp_path / "n.yaml").write_text("step_rescale: 2\n")
    assert sources(open_checkpoint(described))["step_rescale"] == (1.0, "file")
    assert sources(open_checkpoint(described, recipe={"step_rescale": 3}))["step_rescale"] == (3.0, "recipe")
    (tmp_path / "given.yaml").write_text("step_rescale: 4e0\n")
    found = open_checkpoint(described, recipe={"step_rescale": 3}, model_config=tmp_path / "given.yaml")
    assert sources(found)["step_rescale"] == (4.0, "flag")
    found = open_checkpoint(described, flags={"step_rescale": "5"}, model_config=tmp_path / "given.yaml")
    assert sources(found)["step_rescale"] == (5.0, "flag")


def test_a_description_may_not_contradict_the_tensors(tmp_path):
    path = write_s5(tmp_path / "m.safetensors", describe=False, bidirectional=True)
    (tmp_path / "m.json").write_text('{"family": "s5", "bidirectional": false}')
    with pytest.raises(InputError, match=r"m\.json.*bidirectional.*tensors"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("text", "word"),
    [('"modus": "pool"', "'mode'"), ('"mode": "mean"', "pool"), ('"conj_sym": 3', "true or false")],
)
def test_a_wrong_sidecar_names_the_file_and_what_is_known(tmp_path, text, word):
    path = write_s5(tmp_path / "m.safetensors", describe=False)
    (tmp_path / "m.json").write_text(f'{{"family": "s5", {text}}}')
    with pytest.raises(InputError, match=rf"m\.json.*{word}"):
        open_checkpoint(path)


def test_a_config_json_of_another_tool_is_left_alone(tmp_path):
    path = write_s5(tmp_path / "m.safetensors", describe=False)
    (tmp_path / "config.json").write_text('{"architectures": ["Something"], "torch_dtype": "float32"}')
    assert open_checkpoint(path).description.beside.path is None


def test_a_family_that_is_not_there_or_does_not_fit(tmp_path):
    path = write_s5(tmp_path / "m.safetensors", describe=False)
    with pytest.raises(UsageError, match="no model family 'h3'"):
        open_checkpoint(path, flags={"family": "h3"})
    with pytest.raises(UnsupportedModelError, match="described as lru"):
        open_checkpoint(path, flags={"family": "lru"})


def test_options_of_another_model_are_neither_assumed_nor_taken(tmp_path, last):
    arrays = s4d_model(np.random.default_rng(0))
    path, small = tmp_path / "m.safetensors", tmp_path / "small.safetensors"
    containers.write(path, [TensorSource.of(name, array) for name, array in arrays.items()], metadata={})
    code, out, err = last("inspect", path, "--json")
    assert code == 0, err
    assert {"prenorm", "activation", "eps", "mode", "task"} == json.loads(out)["config"].keys()
    assert "residual" not in json.dumps(json.loads(out)["notes"])
    with pytest.raises(UsageError, match="--set: residual says nothing about this checkpoint"):
        open_checkpoint(path, flags={"residual": "F"})
    assert open_checkpoint(path, flags={"residual": "R"}).config["residual"] == "R"
    code, _, err = last("prune", path, "--ratio", "0.3", "--out", small, "-q")
    assert code == 0, err
    written = json.loads(open_checkpoint(small).reader.metadata["last.description"])
    assert written.keys() == {"family", "prenorm", "activation", "eps", "mode", "task", "last"}
    # A description that a file carries may say more than the model has.
    path.with_suffix(".json").write_text(json.dumps({"family": "s4d", "residual": "F"}))
    assert sources(open_checkpoint(path))["residual"] == ("F", "idle")


def test_an_idle_option_in_a_description_file_is_no_error(tmp_path):
    path, given = tmp_path / "m.safetensors", tmp_path / "given.yaml"
    arrays = s4d_model(np.random.default_rng(0))
    containers.write(path, [TensorSource.of(name, array) for name, array in arrays.items()], metadata={})
    given.write_text("residual: F\nprenorm: true\n")
    found = sources(open_checkpoint(path, model_config=given))
    assert found["residual"] == ("F", "idle")
    assert found["prenorm"] == (True, "flag")


def test_what_the_tensors_prove_is_never_idle(tmp_path):
    arrays = transformers(kind="none")
    path = tmp_path / "m.safetensors"
    containers.write(path, [TensorSource.of(name, array) for name, array in arrays.items()], metadata={})
    assert "pooling" in Mega().idle(infos(arrays))
    assert sources(open_checkpoint(path))["pooling"] == ("first", "tensors")
    assert sources(open_checkpoint(path, flags={"pooling": "first"}))["pooling"] == ("first", "flag")


def test_settings_are_pairs_of_a_key_and_a_value():
    assert parse_settings(["a=1", " b = x=y "]) == {"a": "1", "b": "x=y"}
    for items, says in (
        (["a"], "'a' is not of the form key=value"),
        (["=1"], "'=1' is not"),
        (["a=1", "a=2"], "'a' twice"),
    ):
        with pytest.raises(UsageError, match=says):
            parse_settings(items)


def test_the_first_file_beside_a_checkpoint_that_describes_it_counts(tmp_path):
    path = write_s5(tmp_path / "m.safetensors", describe=False)
    (tmp_path / "config.json").write_text('{"family": "s5", "step_rescale": 3, "hidden_size": 8}')
    assert sources(open_checkpoint(path))["step_rescale"] == (3.0, "sidecar")
    (tmp_path / "m.yaml").write_text("family: s5\nstep_rescale: 2\n")
    assert sources(open_checkpoint(path))["step_rescale"] == (2.0, "sidecar")


def test_the_labels_of_a_split_settle_the_task_unless_the_model_has_none(tmp_path):
    path = write_s5(tmp_path / "m.safetensors", describe=False)
    for before, after in (("assumed", ("regression", "data")), ("idle", ("auto", "idle"))):
        checkpoint = open_checkpoint(path)
        checkpoint.settings["task"] = Setting("auto", before)
        checkpoint.take_task("regression")
        assert sources(checkpoint)["task"] == after
        assert checkpoint.settled_task == "regression"
