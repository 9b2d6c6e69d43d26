"""Pickles over inert records: what is read of torch files, plain pickles and joblib files, and that nothing runs."""

from __future__ import annotations

import argparse
import bz2
import collections
import dataclasses
import datetime
import functools
import gzip
import io
import lzma
import math
import pathlib
import pickle
import subprocess
import sys
import warnings
import zipfile
import zlib

import numpy as np
import pytest

from lastcli import containers
from lastcli.containers.pickle import limits, machine, meaning
from lastcli.containers.pickle.arrays import behind
from lastcli.containers.pickle.foreign import kinds_in
from lastcli.containers.pickle.meaning import Meaning
from lastcli.containers.pickle.settings import settings_in
from lastcli.containers.pickle.stream import Stream
from lastcli.containers.pickle.values import Global, Memory, Record, Storage, Tensor, Unread, load
from lastcli.containers.torch import archive as archives
from lastcli.containers.torch import legacy, models
from lastcli.errors import InputError, OutputError
from tests.builders.foreign import foreign, importable, omegaconf
from tests.builders.s4d import s4d_model
from tests.containers.samples import contents, copy, put, same_bits

PARAMS = {"enc": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1 + 2j], np.complex64)}}
FLAT = {"enc/w": PARAMS["enc"]["w"], "enc/b": PARAMS["enc"]["b"]}


def dumped(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_a_tree_of_arrays_in_every_protocol(protocol, tmp_path):
    fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    swapped = np.arange(3, dtype=">i2")
    tree = {
        **PARAMS,
        "f": fortran,
        "swapped": swapped,
        "none": np.zeros((0, 2)),
        "deep": [np.ones(2), (np.zeros(1), 3)],
    }
    arrays = contents(dumped(tmp_path / "x.pkl", tree, protocol))
    expected = {
        **FLAT,
        "f": np.ascontiguousarray(fortran),
        "swapped": swapped.astype("i2"),
        "none": tree["none"],
        "deep/0": np.ones(2),
        "deep/1/0": np.zeros(1),
    }
    same_bits(arrays, expected)


def test_jax_arrays_and_frozen_dictionaries(tmp_path):
    jnp, flax = pytest.importorskip("jax.numpy"), pytest.importorskip("flax")
    tree = flax.core.freeze({"params": {"a": jnp.arange(3.0), "h": jnp.ones(2, jnp.bfloat16)}, "step": 3})
    path = dumped(tmp_path / "x.pkl", tree)
    with containers.open_reader(path) as reader:
        assert reader.kind == "pickle"
        assert reader.tensors["params/h"].dtype == "bfloat16"
        np.testing.assert_array_equal(reader.read("params/h").astype("f4"), np.ones(2, np.float32))
        np.testing.assert_array_equal(reader.read("params/a"), np.arange(3, dtype=np.float32))
        assert reader.extras["step"] == 3


def test_optimizer_state_and_objects_of_others_are_left_out(tmp_path):
    config, objects = omegaconf({"lr": 0.1})
    tree = {"params": PARAMS, "opt_state": {"mu": PARAMS, "count": np.zeros((), np.int32)}, "config": config}
    tree |= {"score": np.float64(0.5), "name": np.str_("run"), "when": datetime.date(2020, 1, 1), 3: np.ones(1)}
    with importable(*objects):
        path = dumped(tmp_path / "x.pkl", tree)
    with containers.open_reader(path) as reader:
        assert set(reader.tensors) == {"params/enc/w", "params/enc/b", "3"}
        assert reader.extras["score"] == 0.5
        assert reader.extras["name"] == "run"
        assert reader.settings == {"config/lr": 0.1}
        optimizer, note = reader.dropped
        assert "'opt_state'" in optimizer
        assert "omegaconf.dictconfig.DictConfig (1), datetime.date (1), at 'config', 'when'" in note
        copy(reader, tmp_path / "y.msgpack")
    same_bits({name: a for name, a in contents(tmp_path / "y.msgpack").items() if name != "3"},
              {f"params/{name}": a for name, a in FLAT.items()})  # fmt: skip


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".pkl.gz", gzip.compress),
        (".joblib", zlib.compress),
        (".pkl.bz2", bz2.compress),
        (".pkl.xz", lzma.compress),
        (".joblib", lambda data: lzma.compress(data, lzma.FORMAT_ALONE)),
    ],
)
def test_compressed_pickles(suffix, pack, tmp_path):
    path = tmp_path / f"x{suffix}"
    whole = pack(pickle.dumps(PARAMS))
    path.write_bytes(whole)
    same_bits(contents(path), FLAT)
    path.write_bytes(whole[:-9])
    with pytest.raises(InputError, match=r"cut short|damaged"):
        containers.open_reader(path)


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress, gzip.compress])
def test_what_unpacks_to_far_more_is_refused_early(pack, tmp_path):
    path = tmp_path / "x.joblib"
    path.write_bytes(pack(pack(bytes(40_000_000))) if pack is gzip.compress else pack(bytes(40_000_000)))
    with pytest.raises(InputError, match=r"unpacks to more|cannot be loaded"):
        containers.open_reader(path)


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("xz", 3)])
def test_joblib_files(compress, tmp_path):
    joblib = pytest.importorskip("joblib")
    path = tmp_path / "x.joblib"
    fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    joblib.dump({**PARAMS, "f": fortran, "o": np.array([{}, "a"], object), "end": np.ones(2)}, path, compress=compress)
    expected = {**FLAT, "f": np.ascontiguousarray(fortran), "end": np.ones(2)}
    same_bits(contents(path), expected)
    with containers.open_reader(path) as reader:
        assert "at 'o'" in reader.dropped[0]


def test_a_fitted_object_is_read_as_its_fields(tmp_path):
    made = foreign("package.Model", {"coef_": np.ones((2, 3)), "parts_": [np.zeros(1)], "n_": 3})
    with importable(made):
        path = dumped(tmp_path / "x.pkl", made)
    with containers.open_reader(path) as reader:
        assert set(reader.tensors) == {"coef_", "parts_/0"}
        assert "Objects (package.Model) are read as the tensors they hold" in reader.dropped[0]


@pytest.mark.parametrize("name", ["x.pkl", "x.pickle", "x.joblib"])
def test_a_pickle_is_never_written(name, tmp_path):
    with pytest.raises(OutputError, match=r"never written.*\.safetensors"):
        put(tmp_path / name, FLAT)
    with pytest.raises(OutputError, match=r"\.safetensors"):
        containers.check_output(tmp_path / name)


@pytest.mark.parametrize("value", [[1, 2], 3, {"a": 1}, {"a": np.array(["x"])}, np.ones(2), foreign])
def test_a_pickle_without_named_tensors(value, tmp_path):
    with pytest.raises(InputError, match="no tensors in named dictionaries"):
        containers.open_reader(dumped(tmp_path / "x.pkl", value))


def test_only_the_first_pickle_of_a_file_is_read(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(PARAMS) + pickle.dumps({"more": 1}))
    with containers.open_reader(path) as reader:
        assert "behind the first pickle" in reader.dropped[-1]


def test_strides_of_the_other_byte_order():
    numbers = np.arange(12, dtype=">c8").reshape(3, 4) * (1 + 2j)
    whole = Storage("complex64", 96, Memory(numbers.astype(">c8").tobytes()), 0, swapped=True)
    tensor = Tensor(whole, "complex64", (4, 2), (1, 8), 0, conj=True)
    np.testing.assert_array_equal(load(tensor, "x"), np.conj(numbers[::2].T).astype("c8"))


def test_bytes_that_are_not_there():
    with pytest.raises(ValueError, match="x ends too early"):
        load(Tensor(Storage("float32", 8, Memory(bytes(4))), "float32", (2,), (1,)), "x")
    with pytest.raises(ValueError, match="a storage without bytes"):
        load(Tensor(Storage("float32", 8), "float32", (2,), (1,)), "x")


# records, as the machine leaves them


def record(kind, *args, **more):
    """What a pickle would have called, `kind` as "module.name"."""
    return Record(Global(*kind.rsplit(".", 1)), args, **more)


FLOATS = record("numpy.dtype", "f4", False, True, state=(3, "<", None, None, None, -1, -1, 0))
NDARRAY = Global("numpy", "ndarray")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (record("torch.Size", [2, 3]), (2, 3)),
        (record("torch.Size"), ()),
        (record("builtins.dict", [("a", 1)], pairs=[("b", [2])]), {"a": 1, "b": [2]}),
        (record("builtins.dict"), {}),
        (record("__builtin__.bytearray", "a\xff", "latin-1"), b"a\xff"),
        (record("builtins.bytes"), b""),
        (record("collections.OrderedDict", [["a", 1], ["b", 2]]), {"a": 1, "b": 2}),
        (record("collections.defaultdict", Global("builtins", "list"), pairs=[("a", 1)]), {"a": 1}),
        ({1, 2}, {1, 2}),
    ],
)
def test_plain_containers_that_a_pickle_calls_are_what_they_would_have_become(raw, expected):
    assert Meaning("x.pkl").value(raw) == expected


@pytest.mark.parametrize(
    "raw",
    [
        record("torch.Size", ["a"]),
        record("builtins.bytes", [1, 2]),
        record("_codecs.encode", "a", "rot13"),
        record("collections.OrderedDict", pairs=[((1, 2), 3)]),
        record("copyreg._reconstructor", "no class", Global("builtins", "object"), None),
        record("torch._utils._rebuild_tensor_v3", Storage("float32", 8), 0, (2,), (1,), False, {}, "float32"),
        record("torch._utils._rebuild_parameter", "no tensor", True, {}),
        record("numpy._core.numeric._frombuffer", b"\0\0\0\0", FLOATS, (1,), "K"),
        # numbers of 16 bytes, and elements of several fields
        record("numpy._core.numeric._frombuffer", bytes(16), record("numpy.dtype", "f16"), (1,), "C"),
        record(
            "numpy._core.numeric._frombuffer",
            bytes(4),
            record("numpy.dtype", "V4", state=(3, "|", None, ("a",), {"a": (FLOATS, 0)}, 4, 1, 16)),
            (1,),
            "C",
        ),
    ],
    ids=lambda raw: raw.kind,
)
def test_what_is_called_in_a_way_that_is_not_known_stays_a_record(raw):
    assert Meaning("x.pkl").value(raw) is raw


@pytest.mark.parametrize("protocol", [0, 1])
def test_an_object_of_the_first_protocols_is_read_as_its_fields(protocol, tmp_path):
    made = foreign("package.Model", {"w": np.ones(2, np.float32)})
    with importable(made):
        path = dumped(tmp_path / "x.pkl", made, protocol)
    same_bits(contents(path), {"w": np.ones(2, np.float32)})


def test_an_object_with_slots_is_read_as_its_fields():
    slotted = record("package.Model", state=({"a": 1}, {"b": 2}))
    assert Meaning("x.pkl", fields=True).value(slotted) == {"a": 1, "b": 2}


def test_numpy_scalars_are_keys_as_the_numbers_that_they_are(tmp_path):
    path = dumped(tmp_path / "x.pkl", {np.str_("a"): {np.int64(3): np.ones(2)}, (1, 2): np.ones(1), "s": {1, 2}})
    with containers.open_reader(path) as reader:
        assert list(reader.tensors) == ["a/3"]
        assert "at '(1, 2)', 's'" in reader.dropped[-1]


def test_an_array_that_python_2_wrote_as_text():
    state = (1, (2,), FLOATS, False, "\0\0\x80?\0\0\0@")
    made = record("numpy.core.multiarray._reconstruct", NDARRAY, (0,), b"b", state=state)
    np.testing.assert_array_equal(load(Meaning("x.pkl").value(made), "x"), np.array([1, 2], np.float32))


@pytest.mark.parametrize("shape", ["2", (-2,), ("2",)])
def test_an_array_with_a_shape_that_is_none(shape):
    made = record("numpy.core.multiarray._reconstruct", NDARRAY, (0,), b"b", state=(1, shape, FLOATS, False, bytes(8)))
    with pytest.raises(InputError, match=r"x\.pkl cannot be loaded \(a shape that is not whole numbers\)"):
        Meaning("x.pkl").value(made)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (record("torch._utils._rebuild_tensor_v2", Storage("qint8", 4), 0, (4,), (1,), False, {}), "quantized"),
        (record("torch._tensor._rebuild_from_type_v2", Global("a", "f"), Global("a", "Sub"), (), {}), "a.Sub"),
        (record("torch._tensor._rebuild_from_type_v2", "f", "Sub", (), {}), "of a class of its own"),
    ],
)
def test_a_tensor_without_a_form_that_is_read_says_what_it_is(raw, kind):
    found = Meaning("x.pt").value(raw)
    assert isinstance(found, Unread)
    assert found.kind == kind
    assert kinds_in([found]) == ({f"a tensor that is {kind}": 1}, 0)


def test_a_module_with_an_empty_place_and_one_of_too_many_tensors(monkeypatch):
    def module(modules, **parameters):
        return record("a.Net", state={"_parameters": parameters, "_buffers": {}, "_modules": modules})

    net = module({"none": None, "inner": module({}, w=1, b=2)}, scale=3)
    assert Meaning("x.pt", fields=True).value(net) == {"scale": 3, "inner.w": 1, "inner.b": 2}
    monkeypatch.setattr(meaning, "_MAX_NAMES", 2)
    with pytest.raises(InputError, match=r"x\.pt is nested too deep or has too many values"):
        Meaning("x.pt", fields=True).value(net)


def test_settings_are_looked_for_in_mappings_by_text_and_not_without_end():
    assert settings_in([{"args": {"a": 1}}]) == {}
    deep = 1
    for _ in range(12):
        deep = {"k": deep}
    settings = {"args": {"a": 1, 2: 3, "__class__": "x", "list": [1], "deep": deep, "less": deep["k"]["k"]}}
    assert settings_in(settings) == {"args/a": 1, "args/less" + 10 * "/k": 1}


def followed(program):
    """What the machine makes of a program of protocol 4."""
    return machine.run(Stream(Memory(b"\x80\x04" + program + b".")), "x.pkl")


def test_sets_in_a_pickle():
    assert followed(b"\x8f(K\x01K\x02\x90") == {1, 2}
    made = followed(b"\x8c\x01a\x8c\x01S\x93)R(K\x01K\x02\x90")
    assert (made.kind, made.items) == ("a.S", [1, 2])


@pytest.mark.parametrize(
    "program",
    [
        b"(",
        b"(\x85",
        b"K\x01(\x86",
        b"](K\x01\x90",
        b"\x8c\x01a\x8c\x01f\x93)]\x92",
    ],
    ids=["a mark as the value", "a mark in a tuple", "a mark in a pair", "items for a list", "options in a list"],
)
def test_operations_on_what_they_do_not_fit_are_damage(program):
    with pytest.raises(InputError, match="its pickle breaks off or is damaged"):
        followed(program)


def test_an_operation_of_a_protocol_to_come_is_refused(monkeypatch):
    known = machine._OPERATIONS["N"]
    new = type(known)("NEW", "\xfe", None, [], known.stack_after, known.proto, "")
    monkeypatch.setitem(machine._OPERATIONS, "\xfe", new)
    with pytest.raises(InputError, match="its pickle breaks off or is damaged"):
        followed(b"\xfe")


def test_lines_longer_than_the_window_are_read_to_their_end():
    text = b"x" * 10_000
    stream = Stream(Memory(text + b"\n" + text))
    assert (stream.readline(), stream.readline(), stream.left) == (text + b"\n", text, 0)
    stream = Stream(Memory(b"ab" * 100_000))
    assert (stream.read(150_000), stream.read(4), stream.left) == (b"ab" * 75_000, b"abab", 49_996)


@pytest.mark.parametrize(
    ("start", "name"),
    [(b"\x04\x22\x4d\x18", "lz4"), (b"ZF", "an old joblib's zfile"), (b"\x28\xb5\x2f\xfd", "zstandard")],
)
def test_a_packing_that_is_not_read_is_named(start, name, tmp_path):
    (tmp_path / "x.joblib").write_bytes(start + bytes(20))
    with pytest.raises(InputError, match=rf"is compressed \({name}\); unpack it first"):
        containers.open_reader(tmp_path / "x.joblib")


def called(module, name):
    """A program that calls a global without arguments."""
    return b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)) + b"\x93)R"


def test_a_form_that_is_not_read_is_refused_by_name_unless_it_goes_with_an_optimizer(tmp_path):
    path = tmp_path / "x.pkl"
    meta = called("torch._utils", "_rebuild_meta_tensor_no_storage")
    program = pickle.dumps({"w": np.ones(2)}, 4)[:-1] + b"\x8c\x01v" + meta
    path.write_bytes(program + b"s.")
    with pytest.raises(InputError, match=r"tensor 'v' is on the device meta, without values, which last does not read"):
        containers.open_reader(path)
    program = pickle.dumps({"params": {"w": np.ones(2)}}, 4)[:-1] + b"\x8c\x09opt_state}\x8c\x01v" + meta
    path.write_bytes(program + b"ss.")
    with containers.open_reader(path) as reader:
        assert list(reader.tensors) == ["params/w"]
        assert "The optimizer state 'opt_state'" in reader.dropped[0]


# torch files that no PyTorch wrote


class FloatStorage:
    """What a pickle calls the class of a storage of float32."""


@dataclasses.dataclass
class Reference:
    """What stands in a pickle as a reference to a storage."""

    key: str
    count: int
    view: tuple | None = None


def referring(value, protocol=2):
    """A pickle with references."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if isinstance(item, Reference):
                more = () if item.view is None else (item.view,)
                return ("storage", FloatStorage, item.key, "cpu", item.count, *more)
            return None

    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def before_1_6(value, storages):
    """A file of the format before PyTorch 1.6 with these storages of float32."""
    heads = [pickle.dumps(head, 2) for head in (legacy.MAGIC, 1001, {"little_endian": True})]
    bytes_of = [len(array).to_bytes(8, "little") + np.asarray(array, "<f4").tobytes() for array in storages.values()]
    return b"".join([*heads, referring(value), pickle.dumps(list(storages), 2), *bytes_of])


def test_a_view_of_a_storage_lies_inside_of_it():
    data = before_1_6({"w": Reference("0", 4, ("v", 1, 2)), "all": Reference("0", 4)}, {"0": [1, 2, 3, 4]})
    found = legacy.read_legacy(Memory(data), "x.pt")
    view, whole = found["w"], found["all"]
    assert np.frombuffer(view.access.read(view.offset, view.nbytes, "w"), "<f4").tolist() == [2, 3]
    assert np.frombuffer(whole.access.read(whole.offset, whole.nbytes, "all"), "<f4").tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("view", "says"),
    [(("v", 3, 2), "the storage '0' has fewer bytes"), (("v", -1, 2), "damaged"), (("v", 0, "2"), "damaged")],
)
def test_a_view_that_lies_elsewhere_is_damage(view, says):
    with pytest.raises(InputError, match=rf"x\.pt.*{says}"):
        legacy.read_legacy(Memory(before_1_6(Reference("0", 4, view), {"0": [1, 2, 3, 4]})), "x.pt")


def test_the_bytes_of_a_storage_that_are_none_leave_a_record():
    nested = functools.partial(legacy.nested_storage, where="x.pkl")
    whole = record("torch.storage._load_from_bytes", before_1_6(Reference("0", 2), {"0": [1, 2]}))
    assert Meaning("x.pkl", nested=nested).value(whole).nbytes == 8
    for data in (3, before_1_6({"w": 1}, {})):
        raw = record("torch.storage._load_from_bytes", data)
        assert Meaning("x.pkl", nested=nested).value(raw) is raw


def archive(path, members):
    """A torch archive of these members."""
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(f"archive/{name}", data)
    return path


def test_a_member_of_an_archive_that_is_not_where_the_directory_says(tmp_path):
    path = archive(tmp_path / "x.pt", {"data.pkl": referring({"w": Reference("0", 2)}), "data/0": bytes(8)})
    whole = path.read_bytes()
    second = whole.index(b"PK\x03\x04", 4)
    path.write_bytes(whole[:second] + b"PK\x03\x05" + whole[second + 4 :])
    with pytest.raises(InputError, match=r"x\.pt is a damaged zip archive; copy the file again"):
        containers.open_reader(path)


def test_archives_of_another_kind_or_of_too_much_structure(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"is a program of torch\.export; save the module's state_dict instead"):
        containers.open_reader(archive(tmp_path / "x.pt", {"models/model.json": "{}"}))
    monkeypatch.setattr(archives, "_MAX_PICKLE", 10)
    with pytest.raises(InputError, match=r"its structure has 11 bytes, over the limit of 10"):
        containers.open_reader(archive(tmp_path / "y.pt", {"data.pkl": bytes(11)}))


def scalar():
    return Tensor(Storage("float32", 4, Memory(bytes(4))), "float32", (), ())


def is_tensor(value):
    return isinstance(value, Tensor)


def test_what_stands_beside_a_model_is_kept_or_named():
    tree = {
        "model": {"w": scalar(), "b/c": scalar(), "at": {"step": 3}},
        "b": {"c": scalar(), "kind": "x"},
        "list": [scalar()],
        3: "a number for a key",
        "hyper": collections.OrderedDict({1: 2}),
        "a/b": 1,
        "last.x": 2,
    }
    found = models.take_apart(tree, ("model",), [("b",)], is_tensor, "x.pt")
    assert list(found.tensors) == ["w", "b/c"]
    assert found.beside == {}
    assert found.extras == {"model/at/step": 3, "b/kind": "x", "hyper": {1: 2}, "a/b": 1}
    assert type(found.extras["hyper"]) is dict
    assert found.paths == {"a/b": ["a/b"]}
    assert found.dropped == [
        "'b/c', beside the model, is named as a tensor of it and not carried on.",
        "'list', a list of tensors, is not carried on.",
        "The entry '3' has a key that is not text and is not carried on.",
        "'last.x', whose name is taken, is not carried on.",
    ]


def test_two_tensors_of_one_name_in_a_model():
    tree = {"a": {"b": scalar()}, "a/b": scalar()}
    with pytest.raises(InputError, match=r"x\.pt: two tensors are both named 'a/b'; rename one of them"):
        models.take_apart(tree, (), [], is_tensor, "x.pt")
    assert models.tensors_at({"step": 3}, (), is_tensor) == {}


# torch files


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def objects():
    """What trainers keep beside the weights, by how the note names it; None for what is carried."""
    config, nodes = omegaconf({"a": {"b": 1}})
    scaler = foreign("sklearn.preprocessing._data.StandardScaler", {"mean_": np.ones(3), "scale_": np.ones(3)})
    dataclass = foreign("train.Config", {"d_state": 4})
    kinds = {
        "omegaconf.dictconfig.DictConfig": config,
        "sklearn.preprocessing._data.StandardScaler": scaler,
        "train.Config": dataclass,
        "argparse.Namespace": argparse.Namespace(lr=1),
        "pathlib.": pathlib.Path("a/b"),
        "datetime.datetime": datetime.datetime(2020, 1, 1),
        "numpy.random._pickle": np.random.RandomState(0),
        "set": {1},
    }
    return kinds, [*nodes, scaler, dataclass]


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_beside_a_state_dict_are_left_out_in_one_note(torch, zipped, tmp_path):
    kinds, made = objects()
    tree = {"model": {"w": torch.ones(2)}, "epoch": np.int64(3), "loss": np.arange(2.0), **kinds, "version": None}
    tree["version"] = torch.torch_version.TorchVersion("2.0")
    with importable(*made):
        torch.save(tree, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with containers.open_reader(tmp_path / "x.pt") as reader:
        assert reader.extras["epoch"] == 3
        (note,) = reader.dropped
        assert note.startswith("Neither built nor carried on: ")
        assert f"{9 - 6} more kinds" in note
        assert "with 4 tensors in them" in note
        copy(reader, tmp_path / "y.pt", template=reader)
    back = torch.load(tmp_path / "y.pt", weights_only=True)
    assert set(back) == {"model", "epoch", "loss"}
    assert back["epoch"] == 3
    assert torch.equal(back["loss"], torch.arange(2.0, dtype=torch.float64))


@pytest.mark.parametrize("kind", list(objects()[0]))
def test_every_kind_is_named(torch, kind, tmp_path):
    kinds, made = objects()
    with importable(*made):
        torch.save({"w": torch.ones(2), "extra": kinds[kind]}, tmp_path / "x.pt")
    with containers.open_reader(tmp_path / "x.pt") as reader:
        assert list(reader.tensors) == ["w"]
        assert kind in reader.dropped[0]


def test_every_way_to_pickle_a_tensor(torch, tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    parameter = torch.nn.Parameter(torch.ones(2))
    tagged = torch.nn.Parameter(torch.zeros(2))
    tagged.tag = 3
    tree = {
        "parameter": parameter,
        "tagged": tagged,
        "view": base.T,
        "same": base,
        "conj": torch.tensor([1 + 2j, 3j]).conj(),
        "neg": torch.tensor([1 + 2j]).conj().imag,
        "half": base.half(),
        "brain": base.bfloat16(),
        "f8": base.to(torch.float8_e4m3fn),
        "u16": torch.ones(2).to(torch.uint16),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(3),
        "bool": torch.tensor([True, False]),
    }
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pt"
        torch.save(tree, path, _use_new_zipfile_serialization=zipped)
        with containers.open_reader(path) as reader:
            assert set(reader.tensors) == set(tree)
            for name, tensor in tree.items():
                found, plain = reader.read(name), tensor.detach().resolve_conj().resolve_neg()
                assert found.shape == tuple(plain.shape)
                bits = {torch.bfloat16: torch.int16, torch.float8_e4m3fn: torch.uint8}.get(plain.dtype)
                assert found.tobytes() == (plain if bits is None else plain.view(bits)).numpy().tobytes(), name


def test_a_subclass_is_the_tensor_that_it_holds(torch, tmp_path):
    class Subclass(torch.Tensor):
        pass

    tree = {"sub": torch.ones(2).as_subclass(Subclass)}
    Subclass.__module__, Subclass.__qualname__ = "a_package", "Subclass"
    module = type(sys)("a_package")
    module.Subclass = Subclass
    sys.modules["a_package"] = module
    try:
        torch.save(tree, tmp_path / "x.pt")
    finally:
        del sys.modules["a_package"]
    np.testing.assert_array_equal(contents(tmp_path / "x.pt")["sub"], np.ones(2, np.float32))


@pytest.mark.parametrize("form", ["sparse", "quantized", "meta"])
def test_forms_that_are_not_read(torch, form, tmp_path):
    tensor = {
        "sparse": lambda: torch.eye(2).to_sparse(),
        "quantized": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        "meta": lambda: torch.empty(2, device="meta"),
    }[form]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensor = tensor()
    torch.save({"w": torch.ones(2), "v": tensor}, tmp_path / "in.pt")
    with pytest.raises(InputError, match=f"tensor 'v' is .*{form}"):
        containers.open_reader(tmp_path / "in.pt")
    torch.save({"model": {"w": torch.ones(2)}, "beside": tensor}, tmp_path / "beside.pt")
    with containers.open_reader(tmp_path / "beside.pt") as reader:
        assert form in reader.dropped[0]
        assert list(reader.tensors) == ["w"]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_module_is_read_as_its_state_dict(torch, zipped, tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    module.register_buffer("hidden", torch.ones(1), persistent=False)
    torch.save({"net": module, "epoch": 3}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with containers.open_reader(tmp_path / "x.pt") as reader:
        assert list(reader.tensors) == list(module.state_dict())
        assert "Objects (torch.nn.modules.container.Sequential)" in reader.dropped[0]
        copy(reader, tmp_path / "y.pt", template=reader)
    back = torch.load(tmp_path / "y.pt", weights_only=True)
    assert back["epoch"] == 3
    torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).load_state_dict(back["net"])


def test_a_module_among_the_settings_is_no_second_model(torch, tmp_path):
    weights = {"w": torch.ones(2)}
    torch.save({"state_dict": weights, "hyper_parameters": {"net": torch.nn.Linear(2, 2)}}, tmp_path / "x.ckpt")
    with containers.open_reader(tmp_path / "x.ckpt") as reader:
        assert list(reader.tensors) == ["w"]
        assert "torch.nn.modules.linear.Linear (1) with 2 tensors in them" in reader.dropped[0]


@pytest.mark.parametrize("protocol", range(6))
def test_a_state_dict_that_was_pickled_without_torch_save(torch, protocol, tmp_path):
    base = torch.arange(6.0)
    state = collections.OrderedDict(w=base.reshape(2, 3).T, same=base)
    path = dumped(tmp_path / "x.pkl", {"model": state, "epoch": 2}, protocol)
    with containers.open_reader(path) as reader:
        assert reader.kind == "pickle"
        np.testing.assert_array_equal(reader.read("w"), state["w"].numpy())
        np.testing.assert_array_equal(reader.read("same"), base.numpy())
        copy(reader, tmp_path / "y.pt", template=reader)
    back = torch.load(tmp_path / "y.pt", weights_only=True)
    assert back["epoch"] == 2
    assert torch.equal(back["model"]["w"], state["w"])


def test_a_program_of_torch_is_refused_by_name(torch, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "x.pt"))
    with pytest.raises(InputError, match="TorchScript"):
        containers.open_reader(tmp_path / "x.pt")


def test_reading_imports_no_torch(torch, tmp_path):
    weights = {name: torch.from_numpy(a) for name, a in s4d_model(np.random.default_rng(0)).items()}
    for zipped in (True, False):
        torch.save({"model": weights, "when": datetime.date(2020, 1, 1)}, tmp_path / f"{zipped}.pt",
                   _use_new_zipfile_serialization=zipped)  # fmt: skip
    code = (
        "import sys\nfrom lastcli.cli import main\n"
        "for command in (['inspect'], ['score'], ['prune', '--ratio', '0.5', '--force', '--out', 'o.safetensors']):\n"
        "    for path in ('True.pt', 'False.pt'):\n"
        "        try:\n            main([command[0], path, *command[1:], '--quiet'])\n"
        "        except SystemExit as end:\n            assert not end.code, end.code\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("leaf", [b"K\x01", b"N", b"\x8c\x01a", b"]", b")"], ids=["one", "none", "text", "list", "()"])
def test_tuples_are_followed_down_to_the_depth_that_is_said(leaf):
    deepest = limits.MAX_TUPLE_DEPTH - (leaf == b")")  # an empty tuple is a tuple itself
    value = followed(leaf + deepest * b"\x85")
    for _ in range(deepest):
        (value,) = value
    assert value in (1, None, "a", [], ())
    with pytest.raises(InputError, match=f"tuples nested more than {limits.MAX_TUPLE_DEPTH} deep"):
        followed(leaf + (deepest + 1) * b"\x85")


@pytest.mark.parametrize(
    ("shape", "sound"),
    [((2, 3), True), ((0, 3), True), ((), True), ((-1, 3), False), ((True,), False), ((1.0,), False)],
)
def test_the_bytes_behind_a_joblib_array_are_as_many_as_its_shape_says(shape, sound):
    record = Record(Global("joblib.numpy_pickle", "NumpyArrayWrapper"))
    dtype = Record(Global("numpy", "dtype"), ("f4", False, True), state=(3, "<", None, None, None, -1, -1, 0))
    record.state = {"dtype": dtype, "shape": shape, "order": "C"}
    stream = Stream(Memory(bytes(100)))
    if sound:
        behind(record, stream, None)
        assert record.items[0].length == 4 * math.prod(shape)
    else:
        with pytest.raises(ValueError, match="whole numbers"):
            behind(record, stream, None)


@pytest.mark.parametrize("name", ["optimizer", "my_optim_state", "lr_Scheduler"])
def test_what_is_named_as_training_is_no_model(name):
    """Adam's moments, kept under a name of their own without the form that torch gives them."""
    tree = {"net": {"a.weight": 1.0}, name: {"a.weight": 2.0}}
    assert models._models(tree, (), lambda value: isinstance(value, float)) == [("net",)]
    assert models._models({"net": tree["net"], "ema": tree["net"]}, (), lambda value: isinstance(value, float)) == [
        ("net",),
        ("ema",),
    ]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_file_is_known_by_how_it_begins_whatever_its_name(protocol, tmp_path):
    path = dumped(tmp_path / "weights of monday", {"w": np.arange(3.0)}, protocol)
    assert containers.kind_of(path) == "pickle"
    with containers.open_reader(path) as reader:
        assert list(reader.tensors) == ["w"]


def test_a_reference_by_a_line_of_text_to_what_is_not_in_the_pickle():
    with pytest.raises(InputError, match=r"x\.pkl refers to 'abc' outside its pickle"):
        followed(b"Pabc\n")


def test_bytes_are_counted_as_what_a_file_holds():
    kinds, tensors = kinds_in([Storage("uint8", 4), {"a": Storage(None, 2)}])
    assert (dict(kinds), tensors) == ({"bytes": 2}, 0)


def test_the_number_of_operations_is_bounded_exactly(monkeypatch):
    program = b"](K\x01e"  # with the protocol before it and the stop behind it six
    monkeypatch.setattr(limits, "MAX_OPERATIONS", 6)
    assert followed(program) == [1]
    monkeypatch.setattr(limits, "MAX_OPERATIONS", 5)
    with pytest.raises(InputError, match="more than 5 operations"):
        followed(program)
