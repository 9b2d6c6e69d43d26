"""Formats of other programs: idx, the archives' `.ts`, the Long Range Arena's `.tsv`, and functions of the user."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lastcli.errors import InputError, UsageError
from lastcli.evaluation.data import load_split, open_split
from lastcli.evaluation.fitting import fit_split
from lastcli.evaluation.readers.base import read_text
from lastcli.evaluation.readers.stored import StoredArray
from lastcli.families.base import Forward

# --- idx ---

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
DIGITS = np.array([3, 1, 4, 1, 5, 9], np.uint8)


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, kind, array.ndim]) + sizes + array.tobytes()


def mnist(folder: Path, *, packed: bool) -> Path:
    for part, rows in (("train", slice(0, 4)), ("t10k", slice(4, 6))):
        for name, array in ((f"{part}-images-idx3-ubyte", IMAGES), (f"{part}-labels-idx1-ubyte", DIGITS)):
            data = idx(array[rows])
            (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(data) if packed else data)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_images_are_sequences_of_pixels_with_their_labels(tmp_path: Path, packed: bool) -> None:
    folder = mnist(tmp_path, packed=packed)
    end = ".gz" if packed else ""
    for named, rows in (
        (folder / f"t10k-images-idx3-ubyte{end}", slice(4, 6)),
        (folder / "test", slice(4, 6)),
        (folder / "train", slice(0, 4)),
        (f"{folder}:train:1:3", slice(1, 3)),
    ):
        split = open_split(named)
        np.testing.assert_array_equal(split.x, IMAGES.reshape(6, 12, 1)[rows])
        np.testing.assert_array_equal(split.y, DIGITS[rows])
    assert isinstance(open_split(folder / "train").x, np.ndarray if packed else StoredArray)
    with pytest.raises(InputError, match=r"holds .*; name one file, or .*/train"):
        open_split(folder)
    with pytest.raises(InputError, match="holds labels"):
        open_split(folder / f"train-labels-idx1-ubyte{end}")


@pytest.mark.parametrize(("kind", "dtype"), [(0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8"), (9, "i1")])
def test_every_type_of_idx(tmp_path: Path, kind: int, dtype: str) -> None:
    array = np.arange(-6, 6).reshape(2, 3, 2).astype(dtype)
    (tmp_path / "a.idx").write_bytes(idx(array, kind))
    split = open_split(tmp_path / "a.idx")
    np.testing.assert_array_equal(split.x, array)
    assert split.batch(0, 2).x.dtype == (np.float32 if dtype[1] == "f" else np.int32)


def test_hostile_idx(tmp_path: Path) -> None:
    whole = idx(IMAGES)
    path = tmp_path / "images-idx3-ubyte"
    huge = whole[:4] + b"\xff" * 12 + whole[16:]
    for data, says in (
        (whole[:-1], "declares 72 bytes.* holds 71"), (whole + b"\0", "holds more"), (whole[:9], "inside its header"),
        (b"", "no idx file"), (b"\0\0\x42\3" + whole[4:], "no idx file"), (huge, "declares"),
        (whole[:4] + b"\0" * 12, "empty split"),
    ):  # fmt: skip
        path.write_bytes(data)
        with pytest.raises(InputError, match=says):
            open_split(path)
        path.with_name("images-idx3-ubyte.gz").write_bytes(gzip.compress(data))
        with pytest.raises(InputError, match=says):
            open_split(path.with_name("images-idx3-ubyte.gz"))
    packed = gzip.compress(whole)
    for data in (packed[:-9], packed[:30], b"\x1f\x8b" + b"\0" * 40, packed[:20] + b"\xff\xff" + packed[22:]):
        path.with_name("images-idx3-ubyte.gz").write_bytes(data)
        with pytest.raises(InputError, match=r"damaged gzip|no idx file|damaged"):
            open_split(path.with_name("images-idx3-ubyte.gz"))


# --- .ts ---

HEADER = "#about\n@problemName Two\n@timeStamps false\n@univariate false\n@dimensions 2\n"


def ts(folder: Path, text: str, name: str = "Two_TRAIN.ts") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_series_of_the_archives(tmp_path: Path) -> None:
    equal = (
        HEADER + "@equalLength true\n@classLabel true run Walk sit\n@data\n1,2.5,-3e-1:4,5,6:sit\n\n7,8,9:0,0,1:run\n"
    )
    split = open_split(ts(tmp_path, equal))
    np.testing.assert_array_equal(split.x, [[[1, 4], [2.5, 5], [-0.3, 6]], [[7, 0], [8, 0], [9, 1]]])
    assert split.classes == ("Walk", "run", "sit"), "of all classes of the header, in the order of the alphabet"
    np.testing.assert_array_equal(split.y, [2, 1])
    assert split.lengths is None
    ragged = HEADER + "@equalLength false\n@classLabel true 2 10 9\n@data\n1,2:3,4:10\n5:6:2\n"
    split = open_split(f"{ts(tmp_path, ragged, 'Two_TEST.ts')}:0:2")
    np.testing.assert_array_equal(split.x, [[[1, 3], [2, 4]], [[5, 6], [0, 0]]])
    np.testing.assert_array_equal(split.lengths, [2, 1])
    assert split.classes == ("2", "9", "10"), "numbers in the order of their values"
    np.testing.assert_array_equal(split.y, [2, 0])
    np.testing.assert_array_equal(open_split(tmp_path / "test").x, split.x)
    with pytest.raises(InputError, match=r"2 .ts files; name one"):
        open_split(tmp_path)


def test_targets_and_series_without_labels(tmp_path: Path) -> None:
    header = "@univariate true\n"
    split = open_split(ts(tmp_path, header + "@targetlabel true\n@data\n1,2:0.5\n3,4:-1\n"))
    np.testing.assert_array_equal(split.x, [[[1], [2]], [[3], [4]]])
    np.testing.assert_array_equal(split.y, [[0.5], [-1]])
    split = open_split(ts(tmp_path, header + "@classLabel false\n@data\n1,2\n3,4\n"))
    assert split.y is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,2:3,4:a\n1,?:3,4:b", r"line 9 \(example 1\): value 1 is missing"),
        ("1,2:3,4:a\n1,2:3:b", r"line 9 \(example 1\): dimension 1 has 1 values"),
        ("1,2:3,4:a\n1,two:3,4:b", "value 1 is 'two' and no number"),
        ("1,2:3,4:a\n1,2:3,4:z", "example 1 has the label 'z'"),
        ("1,2:3,4:a\n1,2:b", "example 1 has 1 dimensions; 2 are expected"),
        ("1,2:3,4:a\n1,2:3,4:", "announces a label"),
        ("1,2:3,4:a\n1:3:b", "equally long, but example 1 has 1 steps"),
        ("", "holds no series"),
        ("(2020-01-01,1):a", "value 0"),
    ],
)
def test_the_first_wrong_line_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        open_split(
            ts(tmp_path, HEADER.replace("#about\n", "") + "@equalLength true\n@classLabel true a b\n@data\n" + text)
        )


def test_hostile_ts(tmp_path: Path) -> None:
    for text, says in (
        ("1,2:3", "line 1 is no line of a header"),
        ("@timeStamps true\n@data\n(1,2):a", "time stamps"),
        ("", "holds no series"),
    ):
        with pytest.raises(InputError, match=says):
            open_split(ts(tmp_path, text))
    (tmp_path / "Two_TRAIN.ts").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(InputError):
        open_split(tmp_path / "Two_TRAIN.ts")
    split = ts(tmp_path, "@univariate true\n@classLabel false\n@data\n1,nan\n")
    with pytest.raises(InputError, match=r"nan at example 0, position \(1, 0\)"):
        fit_split(open_split(split), Forward(lambda *_: (None, ()), 1, 2), labels=False)


# --- .tsv of the Long Range Arena ---


def test_bytes_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "text.test.tsv").write_text('1\tno "end\n0\té\n', encoding="utf-8")
    for named in (tmp_path / "text.test.tsv", tmp_path / "test"):
        split = open_split(named)
        np.testing.assert_array_equal(split.x[0], np.frombuffer(b'no "end', np.uint8).astype(int) + 1)
        np.testing.assert_array_equal(split.x[1], [0xC3 + 1, 0xA9 + 1, 0, 0, 0, 0, 0])
        np.testing.assert_array_equal(split.lengths, [7, 2])
        np.testing.assert_array_equal(split.y, [1, 0])


def test_pairs_of_texts(tmp_path: Path) -> None:
    (tmp_path / "new_aan_pairs.test.tsv").write_text("1.0\tp\tq\tab\tc\n0.0\tr\ts\td\tef\n")
    split = open_split(tmp_path / "new_aan_pairs.test.tsv")
    wanted = np.array([[[97, 98], [99, -1]], [[100, -1], [101, 102]]]) + 1
    np.testing.assert_array_equal(split.x, wanted)
    np.testing.assert_array_equal(split.lengths, [[2, 1], [1, 2]])
    np.testing.assert_array_equal(split.y, [1, 0])


LISTOPS = "Source\tTarget\n( ( [MAX 3 ) 7 ] )\t7\n( [MIN 2 ]\t2\n"


@pytest.mark.parametrize("name", ["vocab.txt", "vocab.json"])
def test_tokens_have_the_numbers_of_the_vocabulary(tmp_path: Path, name: str) -> None:
    (tmp_path / "basic_test.tsv").write_text(LISTOPS)
    with pytest.raises(InputError, match=r"ListOps.*vocab.txt"):
        open_split(tmp_path / "basic_test.tsv")
    tokens = ["[MIN", "<pad>", "[MAX", "X", "2", "3", "7"]
    content = "\n".join(tokens) if name.endswith("txt") else json.dumps({t: i for i, t in enumerate(tokens)})
    model = tmp_path / "model"
    model.mkdir()
    for folder in (tmp_path, model):  # beside the file, or beside the model
        (folder / name).write_text(content)
        split = load_split(tmp_path / "basic_test.tsv", beside=lambda: model)
        np.testing.assert_array_equal(split.x, [[2, 5, 6, 3], [0, 4, 3, 1]])
        np.testing.assert_array_equal(split.lengths, [4, 3])
        np.testing.assert_array_equal(split.y, [7, 2])
        (folder / name).unlink()
    (tmp_path / name).write_text("\n".join(tokens[:-1]) if name.endswith("txt") else '{"[MAX": 0}')
    with pytest.raises(InputError, match=r"line 2: the token '[73]' is not in"):
        open_split(tmp_path / "basic_test.tsv")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty file"), (b"Source\tTarget\n", "empty split"), (b"1\ta\n2\n", "line 2 has 1 cells"),
        (b"a\tb\tc\n", "3 cells"), (b"1\ta\nx\tb\n", "line 2: the label is 'x'"), (b"1\t\xff\n", "tab-separated"),
        (b"1\ta\n0\t\n", "text 1 is empty"), (b"nan\ta\n", "whole number"), (b"1e999\ta\n", "whole number"),
    ],
)  # fmt: skip
def test_hostile_tsv(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "a.tsv").write_bytes(data)
    with pytest.raises(InputError, match=says):
        open_split(tmp_path / "a.tsv")


# --- functions ---

CODE = """
import numpy as np
X = np.arange(24.0).reshape(4, 3, 2)
def alone(): return X
def both(): return X, np.arange(4)
def three(): return X, np.arange(4), np.array([3, 2, 1, 3])
def named(): return {"x": X, "std": 2.0}
def fails(): raise KeyError("nothing here")
def four(): return X, X, X, X
def none(): return None
def other(): return {"x": X, "labels": 1}
def objects(): return np.array([[object()]])
def ragged(): return [[1], [1, 2]]
"""


def test_a_function_of_the_user(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine_of_a_reader.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    x = np.arange(24.0).reshape(4, 3, 2)
    for place in ("folder/mine_of_a_reader.py", "folder/mine_of_a_reader"):
        np.testing.assert_array_equal(open_split(f"{place}:alone").x, x)
        split = open_split(f"{place}:three:1:3")
        np.testing.assert_array_equal(split.x, x[1:3])
        np.testing.assert_array_equal(split.y, [1, 2])
        np.testing.assert_array_equal(split.lengths, [2, 1])
        np.testing.assert_array_equal(open_split(f"{place}:named").batch(0, 4).x, x / 2)
    monkeypatch.chdir(tmp_path / "folder")
    np.testing.assert_array_equal(open_split("mine_of_a_reader:both").y, np.arange(4))
    for name, says in (
        ("fails", "mine_of_a_reader:fails failed: KeyError"), ("four", "4 things"), ("none", "no inputs"),
        ("other", "returned 'labels'"), ("objects", "Python objects"), ("ragged", "x is no array"),
        ("gone", "no function 'gone'"),
    ):  # fmt: skip
        with pytest.raises((UsageError, InputError), match=says):
            open_split(f"mine_of_a_reader:{name}")
    with pytest.raises(UsageError, match="--data no_such_module:f could not be imported"):
        open_split("no_such_module:f")


def test_nothing_is_executed_that_is_not_named(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    for named in ("trap.py", "trap", "trap.npz:train", "trap.ts:test"):
        with pytest.raises(InputError):
            open_split(named)


def test_what_has_no_columns_names_none(tmp_path: Path) -> None:
    (tmp_path / "a.idx").write_bytes(idx(IMAGES))
    with pytest.raises(UsageError, match="an idx file, which has no named columns; leave --columns out"):
        load_split(tmp_path / "a.idx", columns="x=a")


def test_a_part_of_several_tsv_files_and_a_label_that_is_half(tmp_path: Path) -> None:
    for name in ("a.test.tsv", "a.train.tsv"):
        (tmp_path / name).write_text("1\tab\n")
    with pytest.raises(InputError, match=r"holds a\.test\.tsv, a\.train\.tsv; name one file, or one part"):
        open_split(tmp_path)
    assert open_split(tmp_path / "test").n == 1
    (tmp_path / "a.test.tsv").write_text("1.5\tab\n")
    with pytest.raises(InputError, match=r"line 1: the label is '1\.5'; a whole number is needed"):
        open_split(tmp_path / "a.test.tsv")


def test_a_vocabulary_of_characters(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("1\tba)\n0\tab\n")
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "a": 1, "b": 2, ")": 3}))
    np.testing.assert_array_equal(open_split(tmp_path / "a.tsv").x, [[2, 1, 3], [1, 2, 0]])
    for wrong in ('["a", "b"]', '{"a": -1}', '{"a": 1.5}', '{"a": true}'):
        (tmp_path / "vocab.json").write_text(wrong)
        with pytest.raises(InputError, match=r"vocab\.json must map tokens to whole numbers"):
            open_split(tmp_path / "a.tsv")


def test_text_longer_than_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("12345678")
    assert read_text(tmp_path / "a.txt", 8) == "12345678"
    with pytest.raises(InputError, match=r"a\.txt has 8 bytes of text; at most 7 are read, give a part"):
        read_text(tmp_path / "a.txt", 7)
