"""Pickles over inert records: what is read of torch files, plain pickles and joblib files, and that nothing runs."""

from __future__ import annotations

import argparse
import bz2
import collections
import datetime
import gzip
import lzma
import pathlib
import pickle
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest

from lastcli import containers
from lastcli.containers.pickle.values import Memory, Storage, Tensor, load
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
