"""From every container to every container and back: the same bits, names, leaves and metadata."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from lastcli import containers
from lastcli.containers.dtypes import dtype_of
from lastcli.containers.extras import dumps, loads, representable
from lastcli.containers.sidecar import sidecar_text, without_kept
from lastcli.containers.structure import take_metadata
from lastcli.containers.tree import build, flatten
from lastcli.errors import InputError, OutputError
from tests.containers.samples import EXTRAS, contents, copy, every_dtype, put, same_bits

NAMES = {"safetensors": "x.safetensors", "msgpack": "x.msgpack", "orbax": "x", "torch": "x.pt"}
METADATA = {"last.description": json.dumps({"family": "s5", "conj_sym": True}), "format": "np", "k": "ü [bold]"}


def need(*kinds):
    if "torch" in kinds:
        pytest.importorskip("torch")


def same_extras(left, right):
    """Equal, NaN equal to itself, the order of no matter."""
    assert dumps(dict(sorted(left.items()))) == dumps(dict(sorted(right.items())))


@pytest.mark.parametrize("first", NAMES)
@pytest.mark.parametrize("second", NAMES)
def test_there_and_back(first, second, tmp_path):
    need(first, second)
    (tmp_path / "back").mkdir()
    arrays = every_dtype()
    receipt = put(tmp_path / ("a" + NAMES[first]), arrays, METADATA, extras=EXTRAS)
    assert receipt.kind == first
    with containers.open_reader(receipt.path) as reader:
        assert reader.kind == first
        same_extras(reader.extras, EXTRAS)
        copy(reader, tmp_path / NAMES[second])
    with containers.open_reader(tmp_path / NAMES[second]) as reader:
        same_extras(reader.extras, EXTRAS)
        copy(reader, tmp_path / "back" / NAMES[first])
    for path in (receipt.path, tmp_path / NAMES[second], tmp_path / "back" / NAMES[first]):
        same_bits(contents(path), arrays)
    with containers.open_reader(tmp_path / "back" / NAMES[first]) as reader:
        same_extras(reader.extras, EXTRAS)
        if first in ("safetensors", "orbax") and second in ("safetensors", "orbax"):
            assert reader.metadata == METADATA
        rest = {key: value for key, value in reader.metadata.items() if key != "last.description"}
        assert rest == {"format": "np", "k": "ü [bold]"}


@pytest.mark.parametrize("kind", ["msgpack", "torch"])
def test_sidecar_is_the_description(kind, tmp_path):
    need(kind)
    receipt = put(tmp_path / NAMES[kind], {"a": np.ones(2)}, {"last.description": METADATA["last.description"]})
    assert receipt.sidecar == tmp_path / "x.json"
    beside = json.loads(receipt.sidecar.read_text())
    assert set(beside.pop("last")["metadata"]) == {"last.container", "last.digests"}
    assert beside == {"family": "s5", "conj_sym": True}
    assert receipt.sidecar.read_text().startswith('{\n  "family"')


@pytest.mark.parametrize("kind", NAMES)
def test_a_sidecar_only_where_the_file_cannot_hold_it(kind, tmp_path):
    need(kind)
    receipt = put(tmp_path / NAMES[kind], {"a": np.ones(2)})
    assert (receipt.sidecar is None) == containers.CONTAINERS[kind.partition("_")[0]].keeps_metadata
    assert (tmp_path / "x.json").exists() == (receipt.sidecar is not None)


def test_kept_metadata_do_not_pile_up_in_the_description(tmp_path):
    metadata = {
        "last.description": '{"family": "s5", "last": {"ratio": 0.5, "metadata": {"format": "np"}}}',
        "format": "np",
    }
    put(tmp_path / "x.safetensors", {"a": np.ones(2)}, metadata)
    with containers.open_reader(tmp_path / "x.safetensors") as reader:
        assert json.loads(reader.metadata["last.description"]) == {"family": "s5", "last": {"ratio": 0.5}}


@pytest.mark.parametrize("kind", ["safetensors", "msgpack", "torch"])
def test_odd_names(kind, tmp_path):
    need(kind)
    names = ["../../etc/passwd", "a\nb", "\x1b[31mred", "[bold]", "عربي\u202e", "x" * 65_536, "a//b", " ", "a.b/c"]
    arrays = {name: np.full(2, index, np.float32) for index, name in enumerate(names)}
    put(tmp_path / NAMES[kind], arrays)
    same_bits(contents(tmp_path / NAMES[kind]), arrays)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "x.json") == [NAMES[kind]]


@pytest.mark.parametrize("name", ["../../x", "a\0b", "x" * 300, "", "_METADATA", "/etc/x", ".hidden"])
def test_orbax_refuses_names_that_are_no_folders(name, tmp_path):
    arrays = {name: np.ones(2)}
    if name in ("../../x", "/etc/x"):
        # as one key; as a path these are folders with dots and empty names, which orbax joins with "."
        extras = {"last.structure": {"paths": {name: [name]}}}
    else:
        extras = {}
    with pytest.raises(OutputError, match=r"cannot be the name|safetensors"):
        put(tmp_path / "x", arrays, extras=extras)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["msgpack", "orbax"])
def test_a_name_that_is_a_branch_of_another(kind, tmp_path):
    with pytest.raises(OutputError, match="branch"):
        put(tmp_path / NAMES[kind], {"a": np.ones(2), "a/b": np.ones(2)})


def test_dtypes_a_container_lacks_are_refused_by_name(tmp_path):
    with pytest.raises(OutputError, match=r"'z' of dtype complex128.*msgpack"):
        put(tmp_path / "x.safetensors", {"z": np.ones(2, complex)})
    for name in ("x.msgpack", "x"):
        put(tmp_path / name, {"z": np.arange(3) * 1j})
        same_bits(contents(tmp_path / name), {"z": np.arange(3) * 1j})
    with pytest.raises(OutputError, match="which no container here holds"):
        put(tmp_path / "y.msgpack", {"z": np.ones(2, np.longdouble)})


@pytest.mark.parametrize("kind", NAMES)
def test_non_contiguous_arrays_are_written_as_they_look(kind, tmp_path):
    need(kind)
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    views = {"t": base.T, "s": base[:, ::2], "r": base[::-1]}
    sources = [
        containers.TensorSource(
            containers.TensorInfo(name, view.shape, view.dtype.name, view.nbytes), lambda view=view: view
        )
        for name, view in views.items()
    ]
    containers.write(tmp_path / NAMES[kind], sources, metadata={})
    for name, array in contents(tmp_path / NAMES[kind]).items():
        np.testing.assert_array_equal(array, views[name])


def test_extras_of_every_kind_survive_json():
    extras = {
        "tuple": (1, (2.5, None)),
        "bytes": b"\0\xff",
        "complex": complex(math.inf, -0.0),
        "int_keys": {1: "a", (2, 3): [b"x"]},
        "reserved": {"$float": "1"},
        "huge": 2**100,
        "infinite": [math.inf, -math.inf],
    }
    assert loads(dumps(extras), "x") == extras


@pytest.mark.parametrize("kind", NAMES)
def test_exotic_extras_survive_in_every_container(kind, tmp_path):
    need(kind)
    extras = {"tuple": (1, 2), "int_keys": {1: "a"}, "huge": 2**100, "raw": b"\0\xff", "z": 1 + 2j, "list": [1, [2]]}
    put(tmp_path / NAMES[kind], {"a": np.ones(2)}, extras=extras)
    with containers.open_reader(tmp_path / NAMES[kind]) as reader:
        assert reader.extras == extras


@pytest.mark.parametrize(
    ("leaves", "extras", "tree"),
    [
        ({"a/b": 1}, {"a": {}}, {"a": {"b": 1}}),
        ({}, {"a": {}}, {"a": {}}),
        ({"a/0": 1, "a/1": 2}, {"a": []}, {"a": [1, 2]}),
        # children that are no longer all there, or have names, are no list
        ({"a/1": 1}, {"a": []}, {"a": {"1": 1}}),
        ({"a/x": 1}, {"a": []}, {"a": {"x": 1}}),
    ],
)
def test_trees_of_names(leaves, extras, tree):
    assert build(leaves, extras, "x") == tree


def test_a_list_below_a_leaf_makes_no_tree():
    with pytest.raises(OutputError, match="'a/b' cannot be stored beside a leaf that is a branch of it"):
        build({"a": 1.0}, {"a/b": []}, "x")


def test_a_leaf_of_a_kind_that_is_not_carried_is_named():
    with pytest.raises(InputError, match="x: 'a/b' is a object, which last cannot carry"):
        flatten({"a": {"b": object()}}, lambda value: False, "x")


def test_extras_nested_without_end_or_no_mapping():
    nested = []
    for _ in range(100):
        nested = [nested]
    assert not representable(nested)
    with pytest.raises(InputError, match=r"x: the metadata key last\.extras is not a JSON object"):
        loads("[]", "x")


@pytest.mark.parametrize(
    "structure",
    [
        3,
        {"unknown": 1},
        {"paths": {"w": []}},
        {"integers": {"w": [-1]}},
        {"integers": {"w": ["0"]}},
        {"torch": {"at": "model"}},
    ],
)
def test_a_damaged_structure_is_refused(structure):
    with pytest.raises(InputError, match=r"x: the metadata key last\.structure is damaged"):
        take_metadata({"last.extras": json.dumps({"last.structure": structure})}, "x")


@pytest.mark.parametrize(
    ("description", "left"),
    [
        ('{"last": {"metadata": {"k": "v"}}}', "{}"),
        ('{"a": "\\"metadata\\""}', None),
        ('{"last": "metadata"}', None),
        ('["metadata"]', None),
        ('{"metadata"', None),
    ],
)
def test_what_a_sidecar_kept_in_a_description_is_taken_out_of_it(description, left):
    found = without_kept({"last.description": description, "k": "v"})
    assert found == {"last.description": description if left is None else left, "k": "v"}


def test_a_sidecar_without_anything_to_say():
    assert json.loads(sidecar_text({})) == {}
    assert json.loads(sidecar_text({"k": "v"})) == {"last": {"metadata": {"k": "v"}}}


def test_a_dtype_that_no_container_knows_has_no_array():
    with pytest.raises(KeyError, match="object"):
        dtype_of("object")
