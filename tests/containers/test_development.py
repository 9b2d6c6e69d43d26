"""The container that docs/development.md adds is complete: it carries a model there and back."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from lastcli import containers
from lastcli.containers import registry
from lastcli.errors import InputError, OutputError
from tests.containers.samples import contents, put, same_bits

PAGE = (Path(__file__).parents[2] / "docs" / "development.md").read_text()


def blocks() -> dict[str, str]:
    """File name → code, as the section shows it."""
    section = re.search(r"^## A container$(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert section is not None
    found = re.findall(r"^```python\n# (\S+)\n(.*?)^```$", section[1], flags=re.MULTILINE | re.DOTALL)
    assert len(found) == section[1].count("```python")
    return dict(found)


@pytest.fixture
def npz(tmp_path_factory, monkeypatch):
    """The container of the page in the registry, for one test."""
    root = tmp_path_factory.mktemp("added")
    for name, code in blocks().items():
        path = root / Path(name).relative_to("src/lastcli/containers")
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    monkeypatch.setattr(containers, "__path__", [*containers.__path__, str(root)])
    importlib.invalidate_caches()
    before = dict(registry.CONTAINERS)
    scope = dict(vars(registry))
    try:
        exec((root / "registry.py").read_text(), scope)
        registry.CONTAINERS.clear()
        registry.CONTAINERS.update(scope["CONTAINERS"])
        yield registry.CONTAINERS["npz"]
    finally:
        registry.CONTAINERS.clear()
        registry.CONTAINERS.update(before)
        for name in [name for name in sys.modules if name.startswith("lastcli.containers.npz")]:
            del sys.modules[name]
        if hasattr(containers, "npz"):
            del containers.npz


def test_the_registry_of_the_page_is_the_real_one_and_one_line():
    lines = blocks()["src/lastcli/containers/registry.py"].splitlines(keepends=True)
    without = "".join(line for line in lines if '"npz"' not in line)
    assert len(lines) - without.count("\n") == 1
    assert without in Path(registry.__file__).read_text()


def test_a_model_goes_there_and_back_on_the_command_line(npz, last, tiny):
    for source, target in (("tiny.safetensors", "there.npz"), ("there.npz", "back.safetensors")):
        code, out, err = last("convert", source, target, "--json", "-q")
        assert code == 0, err
        found = json.loads(out)
        assert "npz" in (found["container_before"], found["container_after"])
    same_bits(contents(tiny.with_name("there.npz")), contents(tiny))
    same_bits(contents(tiny.with_name("back.safetensors")), contents(tiny))
    with np.load(tiny.with_name("there.npz"), allow_pickle=False) as archive:
        same_bits(dict(archive), contents(tiny))
    descriptions = []
    for name in ("tiny.safetensors", "back.safetensors"):
        with containers.open_reader(tiny.with_name(name)) as reader:
            descriptions.append(json.loads(reader.metadata[containers.DESCRIPTION_KEY]))
    beside = json.loads(tiny.with_name("there.json").read_text())
    assert set(beside.pop("last")["metadata"]) == {"last.container", "last.digests"}
    assert descriptions[0] == descriptions[1] == beside
    assert json.loads(last("inspect", "there.npz", "--json", "-q")[1])["container"] == "npz"
    assert last("convert", "tiny.safetensors", "there.npz", "-q")[0] == 5


def test_leaves_and_metadata_travel_in_the_sidecar(npz, tmp_path):
    put(tmp_path / "x.npz", {"a": np.ones((), np.float16), "e": np.ones((0, 3))}, {"k": "v"}, extras={"step": 3})
    with containers.open_reader(tmp_path / "x.npz") as reader:
        assert (reader.kind, reader.metadata, reader.extras) == ("npz", {"k": "v"}, {"step": 3})


def test_what_numpy_makes_is_read_and_what_it_cannot_say_is_refused(npz, tmp_path):
    arrays = {"f": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "z": np.ones(2, np.complex64)}
    np.savez(tmp_path / "x", **arrays)
    for name, array in contents(tmp_path / "x.npz").items():
        np.testing.assert_array_equal(array, arrays[name])
    np.savez_compressed(tmp_path / "c", **arrays)
    np.savez(tmp_path / "b", b=np.ones(2, ">f4"))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:-40])
    for name, says in (("c", "compressed"), ("b", "no plain array"), ("cut", "cannot be read")):
        with pytest.raises(InputError, match=says):
            containers.open_reader(tmp_path / f"{name}.npz")
    with pytest.raises(OutputError, match="cannot hold tensor 'w'"):
        put(tmp_path / "y.npz", {"w": np.ones(2, ml_dtypes.bfloat16)})
    assert not (tmp_path / "y.npz").exists()
