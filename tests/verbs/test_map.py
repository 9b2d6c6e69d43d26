"""A stranger's file from its refusal to a verified smaller one: `inspect --suggest`, a map, prune, verify, convert."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import lastcli
from lastcli import containers
from lastcli.cli.commands import app
from lastcli.containers.base import TensorSource
from lastcli.errors import InputError, UnsupportedModelError
from tests.builders.attenuate import attenuate_layer
from tests.builders.complex_s4d import complex_s4d_layer
from tests.builders.named import Arrays
from tests.families.test_mapped import anew, nnx


def written(path: Path, arrays: Arrays) -> Path:
    containers.write(path, [TensorSource.of(name, array) for name, array in arrays.items()], metadata={})
    return path


def tensors(path: Path) -> Arrays:
    with containers.open_reader(path) as reader:
        return {name: reader.read(name) for name in reader.tensors}


def last(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(item) for item in arguments])


def test_a_strangers_file_from_refusal_to_a_verified_smaller_one(tmp_path: Path) -> None:
    _, file, _ = nnx()
    source, said = written(tmp_path / "nnx.msgpack", file), tmp_path / "map.yaml"
    refused = last("inspect", source)
    assert refused.exit_code == 4
    assert "C_real_imag" in refused.output
    assert "--suggest" in refused.output
    suggested = last("inspect", source, "--suggest", "-q")
    assert suggested.exit_code == 0
    said.write_text(suggested.output + "kernel_length: 16\n", encoding="utf-8")
    small = tmp_path / "small.msgpack"
    assert last("prune", source, "--model-config", said, "--ratio", "0.5", "--out", small).exit_code == 0
    verified = last("verify", source, small, "--model-config", said)
    assert verified.exit_code == 0, verified.output
    after = lastcli.open(small)
    assert after.family.name == "annotated_s4d"
    before = lastcli.open(source, model_config=said)
    assert [layer.name for layer in after.layers] == [layer.name for layer in before.layers]
    kept = tensors(small)
    for name, array in file.items():
        if "/seq/" not in name:
            assert kept[name].tobytes() == array.tobytes()
    path = next(name for name in file if name.endswith("C_real_imag"))
    assert kept[path].shape[0] == file[path].shape[0]
    assert kept[path].shape[1] < file[path].shape[1]
    assert kept[path].dtype == file[path].dtype


@pytest.mark.parametrize("suffix", [".safetensors", ".msgpack"])
@pytest.mark.parametrize(("method", "refit"), [("last", "none"), ("last", "h2"), ("balanced", "none")])
def test_names_shapes_and_dtypes_are_the_files_own(tmp_path: Path, suffix: str, method: str, refit: str) -> None:
    _, file, said = anew()
    source, small = written(tmp_path / f"own{suffix}", file), tmp_path / f"small{suffix}"
    model = {"family": "s4d", **said}
    lastcli.prune(source, small, ratio=0.4, method=method, refit=refit, model=model)
    after, states = tensors(small), lastcli.open(small).layers[0].states
    assert {name: a.dtype for name, a in after.items()} == {name: a.dtype for name, a in file.items()}
    assert after["net.0.Lam"].shape == (len(file["net.0.dt"]), states)
    assert lastcli.verify(source, small, model=model).ok
    again = tmp_path / f"smaller{suffix}"
    lastcli.prune(small, again, ratio=0.2)  # the description travels with the file
    assert lastcli.verify(small, again).ok


def test_a_map_survives_a_change_of_container_and_leads_to_one_of_family(tmp_path: Path) -> None:
    _, file, said = nnx()
    source = written(tmp_path / "nnx.msgpack", file)
    model = {"family": "annotated_s4", "kernel_length": 16, **said}
    lastcli.convert(source, tmp_path / "same.safetensors", model=model)
    assert lastcli.open(tmp_path / "same.safetensors").family.name == "annotated_s4"
    lastcli.convert(source, tmp_path / "s4d.safetensors", to_family="annotated_s4d", model=model)
    one, other = (lastcli.open(path, model=m) for path, m in ((source, model), (tmp_path / "s4d.safetensors", None)))
    assert other.family.name == "annotated_s4d"
    for before, after in zip(one.systems, other.systems, strict=True):
        np.testing.assert_allclose(after.poles, before.poles, atol=1e-5)


def test_a_map_without_a_family_is_refused(tmp_path: Path) -> None:
    _, file, said = anew()
    with pytest.raises(InputError, match="needs the family"):
        lastcli.open(written(tmp_path / "own.safetensors", file), model=said)


def test_a_map_that_leaves_the_family_incomplete_says_so(tmp_path: Path) -> None:
    _, file, said = anew()
    names = {part: name for part, name in said["names"].items() if part != "C"}
    with pytest.raises(UnsupportedModelError, match=r"described as s4d by its map, but it lacks net\.0\.C\."):
        lastcli.open(written(tmp_path / "own.safetensors", file), model={"family": "s4d", **said, "names": names})


def renamed(arrays: Arrays, names: dict[str, str]) -> Arrays:
    return {f"blocks.{i}.ssm.{names.get(k, k)}": a for i in range(2) for k, a in arrays.items()}


RNG = np.random.default_rng(9)
_SHARED = complex_s4d_layer(RNG, H=4, N=6, prefix="")
_S4D = {
    "A_log_real": np.log(RNG.uniform(0.2, 0.9, (4, 6))).astype("f4"),
    "A_im": RNG.normal(size=(4, 6)).astype("f4"),
    "C_ri": RNG.normal(size=(4, 6, 2)).astype("f4"),
    "logdt": RNG.normal(-3, 0.1, (4, 1)).astype("f4"),
}
_LRU = {
    "log_nu": RNG.normal(-2, 0.1, 6).astype("f4"),
    "log_theta": RNG.normal(size=6).astype("f4"),
    "log_gamma": RNG.normal(-1, 0.1, 6).astype("f4"),
    "b_re": RNG.normal(size=(6, 4)).astype("f4"),
    "b_im": RNG.normal(size=(6, 4)).astype("f4"),
    "c": (RNG.normal(size=(4, 6)) + 1j).astype("c8"),
    "d": RNG.normal(size=4).astype("f4"),
}
STRANGERS = [
    ("complex_s4d", renamed(_SHARED, {"A": "Lambda", "C": "c", "log_dt": "logDelta", "D": "d"})),
    ("complex_s4d", renamed({k: a.T for k, a in _SHARED.items()}, {"A": "lam", "C": "C_tilde"})),
    ("s4d", renamed(_S4D, {})),
    ("lru", renamed(_LRU, {})),
]


@pytest.mark.parametrize(("family", "arrays"), STRANGERS, ids=[f"{name} {i}" for i, (name, _) in enumerate(STRANGERS)])
def test_a_suggestion_opens_the_file_it_was_made_for(tmp_path: Path, family: str, arrays: Arrays) -> None:
    source = written(tmp_path / "stranger.safetensors", arrays)
    with pytest.raises(UnsupportedModelError, match=r"blocks\.0\.ssm\."):
        lastcli.open(source)
    found = last("inspect", source, "--suggest")
    assert found.exit_code == 0
    description = yaml.safe_load(found.output)
    assert description["family"] == family
    assert description["layers"] == "blocks.*.ssm"
    opened = lastcli.open(source, model=description)
    assert [layer.name for layer in opened.layers] == ["blocks.0.ssm", "blocks.1.ssm"]
    assert {layer.states for layer in opened.layers} == {6}
    for tensor in arrays:
        assert tensor in opened.state_tensors
    assert json.loads(last("inspect", source, "--suggest", "--json").output)["description"] == description


def test_of_a_known_model_the_suggestion_is_its_whole_description(tmp_path: Path) -> None:
    source = written(tmp_path / "known.safetensors", complex_s4d_layer(RNG))
    description = yaml.safe_load(last("inspect", source, "--suggest").output)
    assert description == {"family": "complex_s4d", "conj_sym": False, "discretization": "zoh"}


def test_tensors_that_fit_no_family_are_listed_in_a_skeleton(tmp_path: Path) -> None:
    arrays = {"ssm.Lambda": np.ones(4, "c8"), "ssm.B": np.ones((4, 2, 3), "c8"), "mlp.weight": np.ones((2, 2), "f4")}
    found = last("inspect", written(tmp_path / "odd.safetensors", arrays), "--suggest")
    assert found.exit_code == 0
    assert "#   ssm.Lambda  complex64 (4,)" in found.output
    assert "mlp" not in found.output
    assert yaml.safe_load(found.output) is None


def test_nothing_is_suggested_where_nothing_looks_like_states(tmp_path: Path) -> None:
    arrays = {"linear.w": np.ones((3, 3), "f4"), "linear.b": np.ones(3, "f4")}
    found = last("inspect", written(tmp_path / "mlp.safetensors", arrays), "--suggest")
    assert found.exit_code == 4
    assert "first: linear.w" in found.output or "first: linear.b" in found.output


def test_models_that_are_refused_get_no_map(tmp_path: Path) -> None:
    arrays = {"layer.ab": np.ones((4, 2), "f4"), "layer.h_0": np.ones((5, 4), "f4")}
    found = last("inspect", written(tmp_path / "rtf.safetensors", arrays), "--suggest")
    assert found.exit_code == 4
    assert "is an RTF layer" in found.output


def test_a_description_has_no_rows(tmp_path: Path) -> None:
    source = written(tmp_path / "known.safetensors", attenuate_layer(RNG))
    assert last("inspect", source, "--suggest", "--csv").exit_code == 2


def test_a_wrong_option_of_a_known_model_is_not_answered_with_a_map(tmp_path: Path) -> None:
    source = written(tmp_path / "known.safetensors", complex_s4d_layer(RNG))
    found = last("inspect", source, "--suggest", "--set", "discretisation=zoh")
    assert found.exit_code == 2
    assert "discretization" in str(found.exception) + found.output


def test_a_model_that_is_not_known_has_no_other_family(tmp_path: Path) -> None:
    source = written(tmp_path / "mlp.safetensors", {"linear.w": np.ones((3, 3), "f4")})
    with pytest.raises(UnsupportedModelError):
        lastcli.convert(source, tmp_path / "other.safetensors", to_family="s4d")
    assert lastcli.convert(source, tmp_path / "same.safetensors").tensors == 1
