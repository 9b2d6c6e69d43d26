"""What is mutated: checkpoints of every container, `last`'s own and those of others, `.npz`, recipes and sidecars."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import ml_dtypes
import numpy as np

from lastcli import containers
from lastcli.errors import InputError
from tests.builders.eqx import eqx_bytes
from tests.containers.samples import put
from tests.fuzz.mutations import mutate

__all__ = ["SUBJECTS", "Subject", "WrongTensor"]

_JSON = b'"shape" "dtype" "data_offsets" "F32" "I32" "__metadata__" [ ] { } : ,'.split()
_PICKLE = (*b"q h ( t R Q } ] e u s 2 .".split(), b"\x85", b"\x86", b"r\xff\xff\xff\x7f")
_YAML = (b"!!set ", b"&a ", b"- ", b"? ", b"\t", *b"!x *a 2020-01-01 [ { 1e999999999 << ' \\".split())
_NPY = (b"descr", b"fortran_order", b"<f8", b"<i8", b"|O", b"True", b"False", b"\x93NUMPY", b"shape", b"<V2", b"\n")
_ZARR = b'"shape" "chunks" "<f4" "<f8" "order" "C" "F" "fill_value" null true false'.split()


class WrongTensor(Exception):
    """A tensor was read that is not the one that was written, though the file has digests."""


@dataclass(frozen=True)
class Subject:
    """Something to be mutated.

    Attributes:
        make: writes it into a folder and returns its path.
        spoil: mutates it in place.
        check: (path, original tensors) → "same", "other" (something else was read), or raises.
    """

    make: Callable[[Path], Path]
    spoil: Callable[[Path, Random], None]
    check: Callable[[Path, Mapping[str, np.ndarray]], str]


def arrays() -> dict[str, np.ndarray]:
    """A few tensors, none of which is a run of zeros."""
    return {
        "params/a": np.arange(1, 13, dtype=np.float32).reshape(3, 4),
        "params/b": np.array([1 + 2j, 3 - 4j], np.complex64),
        "params/n": np.arange(1, 6, dtype=np.int32),
        "params/h": np.ones(3, ml_dtypes.bfloat16),
        "scalar": np.float64(2.5).reshape(()),
    }


def read(path: Path, original: Mapping[str, np.ndarray]) -> str:
    """Read every tensor; a wrong one where there are digests is a `WrongTensor`."""
    with containers.open_reader(path) as reader:
        found = {name: reader.read(name) for name in reader.tensors}
        certain = bool(reader.digests)
    same = set(found) == set(original) and all(
        found[name].shape == array.shape
        and found[name].dtype == array.dtype
        and found[name].tobytes() == array.tobytes()
        for name, array in original.items()
    )
    if certain and not same:
        raise WrongTensor(str(path))
    return "same" if same else "other"


def _own(name: str, **options: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        metadata = {containers.DESCRIPTION_KEY: json.dumps({"family": "s5", "conj_sym": True}), "k": "v"}
        put(folder / name, arrays(), metadata, extras={"step": 3, "rates": [0.1, 0.2]}, **options)
        return folder / name

    return make


def _file(tokens: Sequence[bytes] = ()) -> Callable[[Path, Random], None]:
    def spoil(path: Path, random: Random) -> None:
        path.write_bytes(mutate(path.read_bytes(), random, tokens))

    return spoil


def _sidecar(path: Path, random: Random) -> None:
    _file(_JSON)(path.with_suffix(".json"), random)


def _folder(tokens: Sequence[bytes]) -> Callable[[Path, Random], None]:
    """One file of a folder changed, removed or exchanged with another."""

    def spoil(path: Path, random: Random) -> None:
        files = sorted(item for item in path.rglob("*") if item.is_file())
        first, second = random.choice(files), random.choice(files)
        choice = random.random()
        if choice < 0.05:
            first.unlink()
        elif choice < 0.1:
            first.write_bytes(second.read_bytes())
        else:
            _file(tokens)(first, random)

    return spoil


def _foreign_safetensors(folder: Path) -> Path:
    from safetensors.numpy import save_file

    plain = {name: array for name, array in arrays().items() if name not in ("params/h", "scalar")}
    save_file(plain, folder / "x.safetensors", {"k": "v"})
    return folder / "x.safetensors"


def _foreign_msgpack(folder: Path) -> Path:
    from flax import serialization

    tree = {"a": np.arange(1.0, 7.0).reshape(2, 3), "list": [np.ones(2, np.float32), 3], "step": 7, "z": 1 + 2j}
    data = serialization.msgpack_serialize({"params": tree, "opt_state": {"0": {"mu": np.ones(3)}}})
    (folder / "x.msgpack").write_bytes(data)
    return folder / "x.msgpack"


def _foreign_equinox(folder: Path) -> Path:
    leaves = [np.arange(1, 13, dtype=np.float32).reshape(3, 4), 3, True, np.ones(2, ml_dtypes.bfloat16), 0.5]
    (folder / "x.eqx").write_bytes(eqx_bytes(leaves, '{"width": 4}'))
    return folder / "x.eqx"


def _foreign_orbax(ocdbt: bool) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import orbax.checkpoint as ocp

        tree = {"a": np.arange(1, 13, dtype=np.float32).reshape(3, 4), "s": {"b": np.ones(2), "step": 3}}
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt)) as checkpointer:
            checkpointer.save(folder / "x", tree)
        return folder / "x"

    return make


def _torch(legacy: bool) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import torch

        tree = {
            "model": {"w": torch.arange(1.0, 7.0).reshape(2, 3), "b": torch.ones(2)},
            "epoch": 3,
            "t": (1, (2, "x")),
        }
        torch.save(tree, folder / "x.pt", _use_new_zipfile_serialization=not legacy)
        return folder / "x.pt"

    return make


def _pickle(protocol: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        whole = {name: array for name, array in arrays().items() if name != "scalar"}
        tree = {"params": whole, "epoch": np.int64(3), "t": (1, (2, "x")), "path": Path("x")}
        (folder / "x.pkl").write_bytes(pickle.dumps(tree, protocol))
        return folder / "x.pkl"

    return make


def _pickled_by_itself(folder: Path) -> Path:
    import torch

    state = {"w": torch.arange(1.0, 7.0).reshape(2, 3), "b": torch.ones(2)}
    (folder / "x.pkl").write_bytes(pickle.dumps({"model": state, "epoch": 3}, 4))
    return folder / "x.pkl"


def _joblib(compress: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import joblib

        tree = {"a": np.arange(1.0, 7.0).reshape(2, 3), "list": [np.ones(2, np.float32), 3]}
        joblib.dump(tree, folder / "x.joblib", compress=compress)
        return folder / "x.joblib"

    return make


def _archive(path: Path, random: Random) -> None:
    """Half of the time the pickle inside, put back into a sound archive; else the archive's own bytes."""
    from tests.hostile.torch import repacked

    data = path.read_bytes()
    if random.random() < 0.5:
        data = repacked(
            data, lambda name, inner: mutate(inner, random, _PICKLE) if name.endswith("data.pkl") else inner
        )
    else:
        data = mutate(data, random)
    path.write_bytes(data)


def _npz(folder: Path) -> Path:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.arange(1.0, 31.0).reshape(5, 6), y=np.arange(1, 6))
    (folder / "x.npz").write_bytes(buffer.getvalue())
    return folder / "x.npz"


def _read_npz(path: Path, original: Mapping[str, np.ndarray]) -> str:
    from lastcli.evaluation.readers.archive import Npz

    with Npz(path) as archive:
        found = {key: archive.read(archive.header(key)) for key in archive.keys}
    expected = {"x": np.arange(1.0, 31.0).reshape(5, 6), "y": np.arange(1, 6)}
    same = set(found) == set(expected) and all(np.array_equal(found[key], expected[key]) for key in expected)
    return "same" if same else "other"


def _recipe(folder: Path) -> Path:
    text = (
        "title: a recipe\ncheckpoint: x.safetensors\ndata: d.npz\nmodel:\n  family: s5\n  conj_sym: true\n"
        "method: last\nratio: 33%\nratios: 0:0.8:0.1\nseed: 3\nscale: 1/255\nlimit: 0:100\nmin_states: 1\n"
        "refits: [none, h2]\nmax_drop: 0.01\n"
    )
    (folder / "r.yaml").write_text(text)
    return folder / "r.yaml"


def _read_recipe(path: Path, original: Mapping[str, np.ndarray]) -> str:
    from lastcli.evaluation.data import parse_scale
    from lastcli.plan import build_plan

    plan = build_plan({}, path)
    if plan.scale is not None:
        parse_scale(plan.scale)
    return "same"


def _described(folder: Path) -> Path:
    from tests.conftest import write_s5

    write_s5(folder / "t.safetensors")
    with containers.open_reader(folder / "t.safetensors") as reader:
        record = {
            "version": "1",
            "method": "last",
            "history": [{"ratio": 0.1}],
            "layers": [{"name": "a", "kept": [1, 2]}],
        }
        said = {**json.loads(reader.metadata[containers.DESCRIPTION_KEY]), "last": record}
        put(
            folder / "x.msgpack",
            {name: reader.read(name) for name in reader.tensors},
            {containers.DESCRIPTION_KEY: json.dumps(said), "k": "v"},
        )
    return folder / "x.msgpack"


def _open_described(path: Path, original: Mapping[str, np.ndarray]) -> str:
    from lastcli.model.opening import open_checkpoint

    with open_checkpoint(path) as checkpoint:
        history = [*checkpoint.provenance.get("history", [])]
        layers = [layer.get("kept") for layer in checkpoint.provenance.get("layers", [])]
    del history, layers
    return read(path, original)


SUBJECTS: dict[str, Subject] = {
    "safetensors": Subject(_own("x.safetensors"), _file(_JSON), read),
    "safetensors of others": Subject(_foreign_safetensors, _file(_JSON), read),
    "shards": Subject(_own("x", shard_bytes=40), _folder(_JSON), read),
    "msgpack": Subject(_own("x.msgpack"), _file((b"\xc7", b"\xdf", b"\xa1", b"float32", b"int32", b"\x93")), read),
    "msgpack of others": Subject(_foreign_msgpack, _file((b"\xc7", b"\xdf", b"float32", b"float64", b"\x93")), read),
    "equinox": Subject(_own("x.eqx"), _file(_NPY), read),
    "equinox of others": Subject(_foreign_equinox, _file(_NPY), read),
    "orbax": Subject(_own("x"), _folder(_ZARR), read),
    "orbax of others, zarr": Subject(_foreign_orbax(False), _folder(_ZARR), read),
    "orbax of others, ocdbt": Subject(_foreign_orbax(True), _folder(_ZARR), read),
    "torch": Subject(_own("x.pt"), _archive, read),
    "torch of others": Subject(_torch(False), _archive, read),
    "torch of others, legacy": Subject(_torch(True), _file(_PICKLE), read),
    "pickle": Subject(_pickle(4), _file(_PICKLE), read),
    "pickle, protocol 2": Subject(_pickle(2), _file(_PICKLE), read),
    "pickle of torch": Subject(_pickled_by_itself, _file(_PICKLE), read),
    "joblib": Subject(_joblib(0), _file(_PICKLE), read),
    "joblib, compressed": Subject(_joblib(3), _file(), read),
    "npz": Subject(_npz, _file((b"descr", b"fortran_order", b"<f8", b"<i8", b"|O", b"True", b"False")), _read_npz),
    "recipe": Subject(_recipe, _file(_YAML), _read_recipe),
    "sidecar": Subject(_described, _sidecar, _open_described),
    "sidecar of torch": Subject(_own("x.pt"), _sidecar, read),
}


def copied(source: Path, folder: Path) -> Path:
    """The whole folder of a subject once more."""
    shutil.copytree(source.parent, folder)
    return folder / source.name


def original_of(path: Path) -> dict[str, np.ndarray]:
    """The tensors before anything is changed; none where it is no checkpoint."""
    try:
        with containers.open_reader(path) as reader:
            return {name: np.array(reader.read(name)) for name in reader.tensors}
    except InputError:
        return {}
