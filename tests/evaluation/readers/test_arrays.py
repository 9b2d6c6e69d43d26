"""Arrays by name: npz, npy pairs and folders, safetensors; what stays on disk; masks and normalisation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from lastcli import containers
from lastcli.containers.base import TensorSource
from lastcli.errors import InputError, UsageError
from lastcli.evaluation.data import Split, load_split, open_split
from lastcli.evaluation.fitting import fit_split
from lastcli.evaluation.readers.stored import StoredArray
from lastcli.families.base import Forward

X = np.random.default_rng(0).standard_normal((7, 5, 3)).astype(np.float32)
Y = np.arange(7) % 2
LENGTHS = np.array([5, 4, 3, 5, 1, 2, 5])


def model(features: int = 3, outputs: int = 2, **changes: Any) -> Forward:
    return Forward(apply=lambda *_: (None, ()), features=features, outputs=outputs, **changes)


def write_npz(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "d.npz", **arrays)
    return folder / "d.npz"


def write_npy_folder(folder: Path, **arrays: np.ndarray) -> Path:
    (folder / "d").mkdir()
    for name, array in arrays.items():
        np.save(folder / "d" / f"{name}.npy", array)
    return folder / "d"


def write_safetensors(folder: Path, **arrays: np.ndarray) -> Path:
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "d.safetensors")
    return folder / "d.safetensors"


WRITERS = [write_npz, write_npy_folder, write_safetensors]


@pytest.mark.parametrize("write", WRITERS)
def test_every_format_gives_the_arrays_as_saved(tmp_path: Path, write: Any) -> None:
    arrays = {"x": X, "y": Y, "lengths": LENGTHS, "x_train": X[:3] + 1, "y_train": Y[:3], "std": np.float64([1, 2, 4])}
    path = write(tmp_path, **arrays)
    split = open_split(path)
    np.testing.assert_array_equal(split.x, X)
    np.testing.assert_array_equal(split.y, Y)
    np.testing.assert_array_equal(split.lengths, LENGTHS)
    np.testing.assert_array_equal(split.std, [1, 2, 4])
    for named in (f"{path}:train", f"{path}:train:0:3"):
        part = open_split(named)
        np.testing.assert_array_equal(part.x, X[:3] + 1)
        np.testing.assert_array_equal(part.y, Y[:3])
        assert part.lengths is None
    np.testing.assert_array_equal(open_split(f"{path}:2:4").x, X[2:4])
    renamed = load_split(path, columns="y=lengths")
    np.testing.assert_array_equal(renamed.y, LENGTHS)
    with pytest.raises(InputError, match=r"no array 'x_none'.*:train"):
        open_split(f"{path}:none")
    with pytest.raises(InputError, match="none are left of 7:9"):
        open_split(f"{path}:7:9")


@pytest.mark.parametrize("write", [write_npy_folder, write_safetensors])
def test_inputs_stay_on_disk_and_batches_read_their_own_rows(tmp_path: Path, write: Any, monkeypatch: Any) -> None:
    path = write(tmp_path, x=X, y=Y, lengths=LENGTHS)
    split = fit_split(open_split(path), model())
    assert isinstance(split.x, StoredArray)
    read: list[int] = []
    before = StoredArray._read
    monkeypatch.setattr(StoredArray, "_read", lambda self, rows: read.extend(rows.tolist()) or before(self, rows))
    batches = list(split.part("1:6").batches(2))
    assert [batch.x.dtype for batch in batches] == [np.float32] * 3
    np.testing.assert_array_equal(np.concatenate([batch.x for batch in batches])[:5], X[1:6])
    assert sorted(set(read)) == [1, 2, 3, 4, 5], "of no other row is a byte read"


def test_rows_of_an_array_on_disk_are_those_of_the_array(tmp_path: Path) -> None:
    array = np.arange(60, dtype=">i2").reshape(10, 3, 2)
    np.save(tmp_path / "x.npy", array)
    stored = open_split(tmp_path / "x.npy").x
    assert isinstance(stored, StoredArray)
    assert (stored.shape, stored.ndim, stored.dtype, stored.nbytes) == ((10, 3, 2), 3, np.dtype("i2"), 120)
    keys: list[Any] = [
        3, -1, slice(2, 9, 3), slice(None, None, -1), np.array([7, 7, 0, 8, 9]), [1, 2], np.arange(10) > 6, (4, 1, 0),
        (slice(1, 3), 1), (np.array([5, 1]), slice(0, 2)), (Ellipsis, 0),
    ]  # fmt: skip
    for key in keys:
        np.testing.assert_array_equal(stored[key], array[key], err_msg=str(key))
    np.testing.assert_array_equal(np.asarray(stored), array)
    assert stored[..., None].shape == (10, 3, 2, 1)
    part = stored.rows(slice(2, 8)).rows(np.array([5, 0, -1]))
    np.testing.assert_array_equal(part, array[2:8][[5, 0, -1]])
    for wrong in (10, np.array([0, -11])):
        with pytest.raises(IndexError):
            stored[wrong]


def test_a_file_cut_short_while_it_is_open_is_an_error_and_no_signal(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1000, 50, 2)))
    split = open_split(tmp_path / "x.npy")
    os.truncate(tmp_path / "x.npy", 5000)
    with pytest.raises(InputError, match="cut short"):
        split.batch(500, 10)


@pytest.mark.parametrize(
    ("name", "labels"),
    [("x", "y"), ("x_test", "y_test"), ("test_x", "test_y"), ("X-val", "y-val"), ("max.x", "max.y")],
)
def test_labels_beside_a_npy(tmp_path: Path, name: str, labels: str) -> None:
    np.save(tmp_path / f"{name}.npy", X)
    assert open_split(tmp_path / f"{name}.npy").y is None
    np.save(tmp_path / f"{labels}.npy", Y)
    np.testing.assert_array_equal(open_split(tmp_path / f"{name}.npy").y, Y)
    np.save(tmp_path / "other.npy", 1 - Y)
    np.testing.assert_array_equal(load_split(tmp_path / f"{name}.npy", columns="y=other").y, 1 - Y)
    with pytest.raises(InputError, match=r"no .*gone\.npy beside it"):
        load_split(tmp_path / f"{name}.npy", columns="y=gone")


def test_fortran_order_and_parts_named_in_front(tmp_path: Path) -> None:
    folder = write_npy_folder(tmp_path, train_x=np.asfortranarray(X), train_y=Y)
    for named in (f"{folder}:train", folder / "train"):
        split = open_split(named)
        np.testing.assert_array_equal(split.x, X)
        np.testing.assert_array_equal(split.y, Y)


def test_a_folder_in_a_folder_is_a_split(tmp_path: Path) -> None:
    write_npy_folder(tmp_path, x=X)
    assert open_split(tmp_path / "d").n == 7
    with pytest.raises(InputError, match="no data is known in this folder"):
        open_split(tmp_path)


# --- hostile files ---


class Mine:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.abort, ()


def hostile_npy(folder: Path, how: str) -> Path:
    path = folder / "x.npy"
    np.save(path, np.array([[Mine()]], object) if how == "objects" else X, allow_pickle=True)
    data = path.read_bytes()
    changes = {
        "objects": data,
        "cut": data[:-8],
        "longer": data + b"\0",
        "huge": data.replace(b"(7, 5, 3)", b"(7, 5, 9" + b"9" * 12 + b")"),
        "header": data[:20],
        "text": data.replace(b"'<f4'", b"'<U1'"),
        "nothing": b"",
    }
    path.write_bytes(changes[how])
    return path


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("objects", "Python objects"), ("cut", "declares 420 bytes"), ("longer", "holds 421"),
        ("huge", "declares|header"),
        ("header", "header"), ("text", "real numbers"), ("nothing", "header"),
    ],
)  # fmt: skip
def test_hostile_npy(tmp_path: Path, how: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        open_split(hostile_npy(tmp_path, how))


@pytest.mark.parametrize("length", [0, 4, 9, 60, 300])
def test_a_cut_safetensors(tmp_path: Path, length: int) -> None:
    path = write_safetensors(tmp_path, x=X, y=Y)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"d\.safetensors"):
        open_split(path)


def test_pipes_do_not_block(tmp_path: Path) -> None:
    for name in ("x.npy", "x.safetensors", "x.ts", "x.csv", "x.tsv", "x.idx", "x.idx.gz", "x.txt", "x.parquet", "x"):
        os.mkfifo(tmp_path / name)
        with pytest.raises((InputError, UsageError), match=r"regular file|tokenizer"):
            open_split(tmp_path / name)


def test_unknown_files_and_columns(tmp_path: Path) -> None:
    (tmp_path / "data.foo").write_bytes(b"what is this?")
    with pytest.raises(InputError, match=r"no reader knows .*\.npz"):
        open_split(tmp_path / "data.foo")
    path = write_safetensors(tmp_path, images=X)
    with pytest.raises(InputError, match=r"it holds 'images'.*--columns"):
        open_split(path)
    with pytest.raises(InputError, match=r"no array 'image'.*Did you mean 'images'"):
        load_split(path, columns="x=image")
    for columns, says in (("x", "role=name"), ("z=a", "no role 'z'"), ("x=images,x=images", "names 2 arrays")):
        with pytest.raises(UsageError, match=says):
            load_split(path, columns=columns)


# --- masks, normalisation, the first wrong example ---


def test_a_mask_is_lengths(tmp_path: Path) -> None:
    mask = np.arange(5) < LENGTHS[:, None]
    for given in (mask, mask.astype(np.float32)):
        np.testing.assert_array_equal(open_split(write_npz(tmp_path, x=X, mask=given)).lengths, LENGTHS)
    for example, wrong, says in (
        (2, [0, 1, 1, 0, 0], "mask of example 2 has padding before"),
        (6, [1, 0, 1, 1, 1], "mask of example 6 has padding before or between"),
        (3, [1, 2, 1, 0, 0], "mask holds 2 at example 3"),
    ):
        spoilt = mask.astype(int)
        spoilt[example] = wrong
        with pytest.raises(InputError, match=says):
            open_split(write_npz(tmp_path, x=X, mask=spoilt))
    with pytest.raises(InputError, match=r"mask has shape \(7, 4\)"):
        open_split(write_npz(tmp_path, x=X, mask=mask[:, :4]))


def test_normalisation_is_that_of_the_definition(tmp_path: Path) -> None:
    x = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    path = write_npz(tmp_path, x=x, mean=np.float32([0.1, 0.2, 0.3]), std=0.5)
    split = load_split(path, scale="1/255")
    wanted = ((x / 255 - np.float32([0.1, 0.2, 0.3]).astype(float)) / 0.5).astype(np.float32)
    np.testing.assert_array_equal(fit_split(split, model(), labels=False).batch(0, 4).x, wanted)
    flags = load_split(path, mean="0,1/2,-1", std="2")
    np.testing.assert_array_equal(flags.batch(0, 4).x, ((x - np.array([0, 0.5, -1])) / 2).astype(np.float32))
    for option, text in (("mean", "a"), ("std", "1,,2"), ("mean", "nan"), ("std", "1e999")):
        with pytest.raises(UsageError, match=f"--{option}"):
            load_split(path, **{option: text})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="positive numbers"):
        load_split(path, std="0")
    with pytest.raises(InputError, match="mean has 2 numbers; one, or one for each of the 3 features"):
        fit_split(load_split(path, mean="1,2"), model(), labels=False)
    with pytest.raises(InputError, match="normalisation was declared, but x holds tokens"):
        fit_split(Split(np.zeros((2, 3), int), mean=np.ones(1)), model(tokens=True), labels=False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": np.where(np.arange(105).reshape(7, 5, 3) == 50, np.nan, X)}, r"nan at example 3, position \(1, 2\)"),
        ({"y": np.array([0, 1, 0, 1, 2, 0, 3])}, "label 2 of example 4"),
        ({"y": np.array([0, 1, 0, np.nan, 1, 0.5, 0])}, "nan at example 3"),
        ({"lengths": np.array([5, 5, 5, 5, 5, 6, 0])}, "is 6 at example 5"),
    ],
)
def test_the_first_wrong_row_is_named(tmp_path: Path, change: dict[str, np.ndarray], says: str) -> None:
    arrays = {"x": X, "y": Y} | change
    for write in (write_npz, write_safetensors):
        with pytest.raises(InputError, match=says):
            fit_split(open_split(write(tmp_path, **arrays)), model())


def test_the_first_wrong_token_is_named_and_its_number_in_large_splits(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("lastcli.evaluation.fitting.CHUNK_BYTES", 100)
    x = np.zeros((20, 6), np.int64)
    x[13, 2], x[17, 0] = 9, -4
    with pytest.raises(InputError, match=r"go from -4 to 9, .*is 9 at example 13"):
        fit_split(open_split(write_safetensors(tmp_path, x=x)), model(8, tokens=True), labels=False)


def test_complex_numbers_are_no_inputs(tmp_path: Path) -> None:
    sources = [TensorSource.of("x", np.zeros((2, 3), np.complex64))]
    containers.write(tmp_path / "d.safetensors", sources, metadata={})
    with pytest.raises(InputError, match=r"tensor 'x' has dtype .*; store it as float32"):
        open_split(tmp_path / "d.safetensors")


def test_no_rows_of_an_array_on_disk_are_read(tmp_path: Path) -> None:
    x = open_split(write_safetensors(tmp_path, x=X)).x
    assert isinstance(x, StoredArray)
    for none in (x[:0], x[np.array([], int)], x.rows(slice(2, 2))[:]):
        assert none.shape == (0, *X.shape[1:])
        assert none.dtype == x.dtype
