"""Named columns: CSV, Parquet, Arrow, and folders that `save_to_disk` wrote."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lastcli.errors import InputError, UsageError
from lastcli.evaluation.data import load_split, open_split
from lastcli.evaluation.readers.padding import padded

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

Columns = dict[str, list[Any]]


def csv(folder: Path, columns: Columns, name: str = "a.csv") -> Path:
    rows = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values()))]
    (folder / name).write_text("\n".join(rows) + "\n")
    return folder / name


def parquet(folder: Path, columns: Any, name: str = "a.parquet") -> Path:
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), folder / name, row_group_size=2)
    return folder / name


def arrow(folder: Path, columns: Any, name: str = "a.arrow", *, stream: bool = False) -> Path:
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(folder / name), "wb") as file, new(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return folder / name


def stream(folder: Path, columns: Any) -> Path:
    return arrow(folder, columns, stream=True)


ALL = [csv, parquet, arrow, stream]


# --- a row is an example ---


@pytest.mark.parametrize("write", ALL)
def test_columns_are_steps(tmp_path: Path, write: Any) -> None:
    path = write(tmp_path, {"label": [1, 0, 1], "a": [1, 2, 3], "b": [4.5, 5, 6], "c": [7, 8, 9], "length": [3, 2, 1]})
    split = open_split(path)
    np.testing.assert_array_equal(split.x, [[1, 4.5, 7], [2, 5, 8], [3, 6, 9]])
    np.testing.assert_array_equal(split.y, [1, 0, 1])
    np.testing.assert_array_equal(split.lengths, [3, 2, 1])
    chosen = load_split(path, columns="x=c,x=a,y=b")
    np.testing.assert_array_equal(chosen.x, [[7, 1], [8, 2], [9, 3]])
    np.testing.assert_array_equal(chosen.y, [4.5, 5, 6])
    np.testing.assert_array_equal(open_split(f"{path}:1:3").x, split.x[1:3])
    with pytest.raises(InputError, match=r"no column 'labl', .*Did you mean 'label'"):
        load_split(path, columns="y=labl")
    with pytest.raises(UsageError, match="holds one split and no part 'train'"):
        open_split(f"{path}:train")


@pytest.mark.parametrize("write", ALL)
def test_classes_that_are_text_are_numbered_by_the_alphabet(tmp_path: Path, write: Any) -> None:
    split = open_split(write(tmp_path, {"a": [1, 2, 3], "y": ["no", "yes", "maybe"]}))
    np.testing.assert_array_equal(split.y, [1, 2, 0])
    assert split.classes == ("maybe", "no", "yes")


@pytest.mark.parametrize("write", [parquet, arrow, stream])
def test_columns_of_lists(tmp_path: Path, write: Any) -> None:
    fixed = pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int32(), 2))
    split = open_split(write(tmp_path, {"x": fixed, "y": [0.5, 1, 2]}))
    np.testing.assert_array_equal(split.x, [[1, 2], [3, 4], [5, 6]])
    assert split.lengths is None
    ragged = {
        "input_ids": [[5, 6, 7], [8], [9, 1]],
        "labels": pa.array(["b", "a", "b"]).dictionary_encode(),
        "attention_mask": [[1, 1, 1], [1], [1, 0]],
    }
    split = open_split(write(tmp_path, ragged))
    np.testing.assert_array_equal(split.x, [[5, 6, 7], [8, 0, 0], [9, 1, 0]])
    np.testing.assert_array_equal(split.y, [1, 0, 1])
    np.testing.assert_array_equal(split.lengths, [3, 1, 2])
    matrices = {"series": [[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]], "y": [[1, 2], [3, 4]]}
    split = load_split(write(tmp_path, matrices), columns="x=series")
    np.testing.assert_array_equal(split.x, [[[1, 2], [0, 0]], [[3, 4], [5, 6]]])
    np.testing.assert_array_equal(split.y, [[1, 2], [3, 4]])
    sliced = pa.table({"x": [[0], [1, 2], [3]]}).slice(1)
    np.testing.assert_array_equal(open_split(write(tmp_path, sliced)).x, [[1, 2], [3, 0]])


# --- a row is a step ---


@pytest.mark.parametrize("write", ALL)
def test_a_column_says_which_series_a_row_belongs_to(tmp_path: Path, write: Any) -> None:
    columns: Columns = {
        "id": ["b", "a", "b", "a", "b"], "time": [0, 0, 1, 5, 1], "open": [1, 2, 3, 4, 5],
        "close": [0.5, 0.25, 0, 1, 2], "label": [1, 0, 1, 0, 1],
    }  # fmt: skip
    split = open_split(write(tmp_path, columns))
    wanted = [[[1, 0.5], [3, 0], [5, 2]], [[2, 0.25], [4, 1], [0, 0]]]
    np.testing.assert_array_equal(split.x, wanted)
    np.testing.assert_array_equal(split.lengths, [3, 2])
    np.testing.assert_array_equal(split.y, [1, 0])
    steps = open_split(write(tmp_path, columns | {"label": [1, 0, 0, 1, 2]}))
    np.testing.assert_array_equal(steps.y, [[1, 0, 2], [0, 1, 0]])
    targets = open_split(write(tmp_path, columns | {"label": [1.5, 0, 0, 1, 2]}))
    np.testing.assert_array_equal(targets.y, [[[1.5], [0], [2]], [[0], [1], [0]]])
    with pytest.raises(InputError, match="'time' goes back at row 2"):
        open_split(write(tmp_path, columns | {"time": [2, 0, 1, 5, 1]}))
    with pytest.raises(InputError, match="series b has several labels"):
        open_split(write(tmp_path, columns | {"label": ["p", "q", "q", "q", "p"]}))


def test_a_folder_of_series(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / "d" / part).mkdir(parents=True)
    folder = tmp_path / "d" / "test"
    csv(folder, {"t": [0, 1], "u": [1, 2], "v": [3, 4]}, "b.csv")
    csv(folder, {"t": [0], "u": [0.5], "v": [6]}, "a.csv")
    for named in (folder, f"{tmp_path / 'd'}:test"):
        split = open_split(named)
        np.testing.assert_array_equal(split.x, [[[0.5, 6], [0, 0]], [[1, 3], [2, 4]]])
        np.testing.assert_array_equal(split.lengths, [1, 2])
        assert split.y is None
    with pytest.raises(InputError, match=r"name a part, d/test"):
        open_split(tmp_path / "d")
    csv(folder, {"file": ["b.csv", "a.csv"], "y": [7, 8]}, "labels.csv")
    np.testing.assert_array_equal(open_split(folder).y, [8, 7])
    csv(folder, {"file": ["b.csv"], "y": [7]}, "labels.csv")
    with pytest.raises(InputError, match=r"labels\.csv has no row for a\.csv"):
        open_split(folder)
    csv(folder, {"t": [0], "w": [0.5], "v": [6]}, "c.csv")
    with pytest.raises(InputError, match=r"c\.csv has the columns t, w, v, but a\.csv has t, u, v"):
        open_split(folder)


# --- folders of several files ---


def test_shards_of_a_split(tmp_path: Path) -> None:
    for name, rows in (("train-00000-of-00002", [1, 2]), ("train-00001-of-00002", [3]), ("test-00000-of-00001", [4])):
        parquet(tmp_path, {"x": [[value] * 2 for value in rows]}, f"{name}.parquet")
    for named in (tmp_path / "train", f"{tmp_path}:train"):
        np.testing.assert_array_equal(open_split(named).x, [[1, 1], [2, 2], [3, 3]])
    for named in (tmp_path, tmp_path / "validation"):
        with pytest.raises(InputError, match=r"several splits; name one of them: .*/test, .*/train"):
            open_split(named)


def saved_dataset(folder: Path, columns: Any, features: Any = None) -> Path:
    """What `Dataset.save_to_disk` writes."""
    folder.mkdir(parents=True)
    arrow(folder, columns, "data-00000-of-00001.arrow", stream=True)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features or {}}))
    return folder


def test_a_data_set_on_disk(tmp_path: Path) -> None:
    label = {"names": ["neg", "pos"], "_type": "ClassLabel"}
    columns = {"input_ids": [[1, 2], [3, 4]], "label": [1, 0]}
    for part in ("train", "test"):
        saved_dataset(tmp_path / "d" / part, columns, {"label": label})
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    for named in (tmp_path / "d" / "test", f"{tmp_path / 'd'}:test"):
        split = open_split(named)
        np.testing.assert_array_equal(split.x, [[1, 2], [3, 4]])
        np.testing.assert_array_equal(split.y, [1, 0])
        assert split.classes == ("neg", "pos")
    for named in (tmp_path / "d", f"{tmp_path / 'd'}:none"):
        with pytest.raises(InputError, match="several splits; name one of them: d/train, d/test"):
            open_split(named)


def test_hostile_data_sets(tmp_path: Path) -> None:
    folder = saved_dataset(tmp_path / "d", {"x": [[1, 2]]})
    for state, says in (
        ("{", "state.json"), ("[]", "no mapping"), ("{}", "names no data files"),
        ('{"_data_files": 3}', "no data files"),
        ('{"_data_files": [{"filename": "../a.arrow"}]}', "outside its folder"),
        ('{"_data_files": [{"filename": "/etc/passwd"}]}', "outside its folder"),
        ('{"_data_files": [{"filename": 3}]}', "outside its folder"),
        ('{"_data_files": [{"filename": "gone.arrow"}]}', "no data file"),
    ):  # fmt: skip
        (folder / "state.json").write_text(state)
        with pytest.raises(InputError, match=says):
            open_split(folder)


# --- hostile and wrong tables ---


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty file"), ("a,b\n", "no rows"),
        ("a,a\n1,2\n", "names the column 'a' twice"), ("a,\n1,2\n", "without a name"),
        ("1,2\n3,4\n", "holds numbers"), ("a,b\n1,2\n3\n", "row 1 has 1 cells, but there are 2"),
        ("a,b\n1,2\n3,\n", "row 1 has no value in column 'b'"), ("a,b\n1,2\nx,3\n", "column 'a' holds text"),
        ('a,b\n1,"2\n', "no CSV file"), ("y\n1\n", "no columns of inputs"),
        ("a\n" + "1" * 200_000 + "\n", "no CSV file"),
    ],
)  # fmt: skip
def test_hostile_csv(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        open_split(tmp_path / "a.csv")


def test_csv_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,\xff\n")
    with pytest.raises(InputError, match="no CSV file"):
        open_split(tmp_path / "a.csv")


def test_numbers_of_a_column_may_change_their_kind_in_a_long_file(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("lastcli.evaluation.readers.csv._CHUNK", 2)
    path = csv(tmp_path, {"a": [1, 2, 3, 4.5, 5], "y": [1, 2, 3, 4, "x"]})
    split = open_split(path)
    np.testing.assert_array_equal(split.x, [[1], [2], [3], [4.5], [5]])
    assert split.classes == ("1", "2", "3", "4", "x")


@pytest.mark.parametrize("write", [parquet, arrow, stream])
@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"x": [[1, 2], None, [3, 4]]}, "column 'x' has no value in row 1"),
        ({"x": [[1, 2], [3, None]]}, "column 'x' has no value in row 1"),
        ({"x": [[1], []]}, "example 1 is empty"),
        ({"x": [[[1, 2], [3]], [[4, 5]]]}, "row 0 is ragged"),
        ({"x": [[[1, 2]], [[4, 5, 6]]]}, r"example 1 has features \(3,\)"),
        ({"x": [["a"], ["b"]]}, "lists of text"),
        ({"x": [{"bytes": b"png"}]}, "of type struct"),
        ({"x": [[1, 2], [3, 4]], "y": [[1], [1, 2]]}, r"'y' has shape \(2,\) in row 1"),
        ({"x": [[1, 2], [3, 4]], "z": [1, 2]}, None),
        ({"x": pa.array([], pa.list_(pa.int32()))}, "no rows"),
    ],
)
def test_wrong_rows(tmp_path: Path, write: Any, columns: Any, says: str | None) -> None:
    path = write(tmp_path, columns)
    if says is None:
        assert open_split(path).n == 2
        return
    with pytest.raises(InputError, match=says):
        open_split(path)


@pytest.mark.parametrize("write", [parquet, arrow, stream])
def test_damaged_files(tmp_path: Path, write: Any) -> None:
    path = write(tmp_path, {"x": [[1, 2], [3, 4], [5, 6]], "y": [1, 2, 3]})
    whole = path.read_bytes()
    for length in range(0, len(whole) - 9, 37):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"a\.(parquet|arrow)"):
            open_split(path)


def test_a_parquet_bomb(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"a": np.zeros(10, np.int64)})
    pq.write_table(pa.table({"a": np.zeros(9_000_000, np.int64)}), path)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match="would unpack to 72,000,000"):
        open_split(path)


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [parquet(tmp_path, {"a": [1]}), arrow(tmp_path, {"a": [1]}), saved_dataset(tmp_path / "d", {"a": [1]})]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for path in paths:
        with pytest.raises(UsageError, match=r"pyarrow library: pip install 'lastcli\[parquet\]'"):
            open_split(path)


def test_tensors_of_arrow_are_their_lists(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(values.reshape(3, 2, 2))
    np.testing.assert_array_equal(open_split(arrow(tmp_path, {"x": tensors})).x, values)


def test_columns_that_do_not_go_together(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([1, 2])] * 2, names=["a", "a"])
    with pytest.raises(InputError, match="names a column twice"):
        open_split(arrow(tmp_path, twice))
    parquet(tmp_path, {"x": [[1]]}, "train-00000-of-00002.parquet")
    parquet(tmp_path, {"z": [[1]]}, "train-00001-of-00002.parquet")
    with pytest.raises(InputError, match="its files have different columns"):
        open_split(tmp_path / "train")
    lists = parquet(tmp_path, {"a": [[1], [2]], "b": [[3], [4]]})
    with pytest.raises(InputError, match="the columns a, b cannot be inputs together; name one list"):
        load_split(lists, columns="x=a,x=b")


def test_several_columns_of_labels(tmp_path: Path) -> None:
    path = csv(tmp_path, {"a": [1, 2], "u": [0, 1], "v": [1, 1]})
    split = load_split(path, columns="x=a,y=u,y=v")
    np.testing.assert_array_equal(split.y, [[0, 1], [1, 1]])


def test_empty_lines_are_no_rows_and_labels_have_their_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n\n3,4\n\n")
    np.testing.assert_array_equal(open_split(tmp_path / "a.csv").x, [[1, 2], [3, 4]])
    folder = tmp_path / "d"
    folder.mkdir()
    csv(folder, {"t": [0, 1], "u": [1, 2]}, "b.csv")
    csv(folder, {"name": ["b.csv"], "y": [7]}, "labels.csv")
    with pytest.raises(InputError, match=r"labels\.csv has the columns name, y; 'file' and 'y' are needed"):
        open_split(folder)


def test_no_rows_are_no_split() -> None:
    with pytest.raises(InputError, match="d is an empty split: it holds no example"):
        padded([], "d")
