"""Damaged files of every format: they are read, or end in one sentence; nothing else escapes."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lastcli.errors import LastError
from lastcli.evaluation.data import open_split

X = np.arange(60, dtype=np.float32).reshape(5, 4, 3)
Y = np.array([0, 1, 0, 1, 1])
MUTATIONS = 40


def _idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 13, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def _series(values: np.ndarray) -> str:
    return ":".join(",".join(map(str, row)) for row in values.T)


def _parquet(path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    pq.write_table(pa.table({"x": X.tolist(), "y": Y}), path)


def _arrow(path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"x": X.tolist(), "y": Y})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


FILES: dict[str, Callable[[Path], object]] = {
    "d.npz": lambda path: np.savez(path, x=X, y=Y),
    "x.npy": lambda path: np.save(path, X),
    "d.safetensors": lambda path: save_file({"x": X, "y": Y}, path),
    "d.idx": lambda path: path.write_bytes(_idx(X.astype(">f4"))),
    "d.idx.gz": lambda path: path.write_bytes(gzip.compress(_idx(X.astype(">f4")))),
    "d.ts": lambda path: path.write_text(
        "@univariate false\n@dimensions 3\n@classLabel true 0 1\n@data\n"
        + "\n".join(f"{_series(x)}:{y}" for x, y in zip(X, Y))
    ),
    "d.tsv": lambda path: path.write_text("Source\tTarget\nsome text\t1\nother\t0\n"),
    "d.csv": lambda path: path.write_text("series,a,b,y\n0,1,2.5,0\n0,3,4,0\n1,5,6,1\n"),
    "d.parquet": _parquet,
    "d.arrow": _arrow,
}


def _mutated(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    at = int(rng.integers(len(changed)))
    how = rng.integers(5)
    if how == 0:
        return data[:at]
    if how == 1:
        return data[:at] + rng.bytes(int(rng.integers(1, 9))) + data[at:]
    if how == 2:
        changed[at : at + 4] = b"\xff" * 4
    elif how == 3:
        changed[at] = int(rng.integers(256))
    else:
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_read_or_ends_in_one_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    FILES[name](path)
    assert open_split(path).n
    whole, rng = path.read_bytes(), np.random.default_rng(len(name))
    for _ in range(MUTATIONS):
        path.write_bytes(_mutated(whole, rng))
        said = _read(path)
        assert said is None or (name in said and "\n" not in said), said


def _read(path: Path) -> str | None:
    """What is said of the file, None where it is read."""
    try:
        np.asarray(open_split(path).x)
    except LastError as error:
        return str(error)
    return None
