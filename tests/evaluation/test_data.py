"""Splits: reading, hostile files, the fit to a model, batches."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lastcli.errors import InputError, UsageError
from lastcli.evaluation.data import Split, load_split, open_split
from lastcli.evaluation.fitting import fit_split, random_split
from lastcli.evaluation.locations import Location, parse_location, parse_rows, parse_scale
from lastcli.evaluation.normalisation import checked_numbers
from lastcli.families.base import Forward


def model(features: int = 3, outputs: int = 4, **changes: object) -> Forward:
    return Forward(apply=lambda *_: (None, ()), features=features, outputs=outputs, **changes)  # type: ignore[arg-type]


def classes(n: int = 10, shape: tuple[int, ...] = (5, 3), **changes: object) -> Split:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((n, *shape)).astype(np.float32)
    fields = {"x": x, "y": np.arange(n) % 4, "name": "split"}
    return Split(**(fields | changes))  # type: ignore[arg-type]


def save(path: Path, **arrays: object) -> Path:
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def raw_npz(path: Path, members: list[tuple[str, bytes]], how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive, pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # zipfile warns of repeated names
        for name, data in members:
            archive.writestr(name, data)
    return path


def npy(array: np.ndarray, shape: str | None = None, dtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    data = buffer.getvalue()
    length = int.from_bytes(data[8:10], "little")
    head = data[10 : 10 + length].decode()
    if shape is not None:
        head = head.replace(f"'shape': {array.shape}", f"'shape': {shape}")
    if dtype is not None:
        head = head.replace(array.dtype.str, dtype)
    return data[:8] + len(head).to_bytes(2, "little") + head.encode() + data[10 + length :]


# --- reading ---


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "f8", "f2", "u1"])
def test_arrays_come_back_as_saved(tmp_path: Path, order: str, dtype: str) -> None:
    x = np.asarray(np.random.default_rng(1).integers(0, 200, (6, 4, 2)), dtype, order=order)
    split = open_split(save(tmp_path / "a.npz", x=x, y=np.arange(6), lengths=np.full(6, 4)))
    np.testing.assert_array_equal(split.x, x)
    assert split.x.dtype.isnative
    assert split.n == 6
    np.testing.assert_array_equal(split.lengths, 4)
    part = load_split(tmp_path / "a.npz", limit="2:5")
    np.testing.assert_array_equal(part.x, x[2:5])
    np.testing.assert_array_equal(part.y, [2, 3, 4])


def test_parts_and_ranges_in_the_name(tmp_path: Path) -> None:
    train, test = np.zeros((5, 4, 1)), np.ones((3, 4, 1))
    path = save(tmp_path / "a.npz", x=test, y=test, x_train=train, y_train=train)
    assert open_split(path).n == 3
    assert open_split(f"{path}:train").n == 5
    assert open_split(f"{path}:train:1:3").n == 2
    assert open_split(Location(path, "train", slice(1, 3))).n == 2
    assert open_split(f"{path}:-2:").n == 2
    assert parse_location("dir/x.npz:0:8") == Location(Path("dir/x.npz"), None, slice(0, 8))
    assert parse_location("plain.txt") == Location(Path("plain.txt"))


@pytest.mark.parametrize("name", ["x.npz", "x.npz:test", "x.npz:0:8", "x.npz::8", "x.npz:-2:", "X.NPZ:test:3:9"])
def test_a_location_keeps_its_name(name: str) -> None:
    assert parse_location(f"some/where/{name}").name == name


def test_a_path_is_the_file_of_that_name(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", x=np.zeros((5, 4)))
    with pytest.raises(InputError, match=r"no data file .*a\.npz:0:2"):
        open_split(Path(f"{path}:0:2"))
    two = save(tmp_path / "two.npz", x=np.zeros((2, 4))).rename(tmp_path / "a.npz:0:3")
    assert open_split(two).n == 2
    assert open_split(str(two)).n == 2, "a file of that whole name comes before a range of another one"


def test_the_limit_replaces_the_range_of_the_location(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", x=np.arange(40.0).reshape(10, 4))
    split = load_split(f"{path}:0:8", scale="1/2", limit="6:9")
    np.testing.assert_array_equal(split.x, np.arange(24.0, 36.0).reshape(3, 4))
    assert split.scale == 0.5
    assert load_split(f"{path}:0:8").n == 8
    with pytest.raises(UsageError, match="not a scale"):
        load_split(path, scale="half")
    with pytest.raises(UsageError, match="not a range"):
        load_split(path, limit="some")


def test_named_part_is_suggested(tmp_path: Path) -> None:
    path = save(tmp_path / "b.npz", x_train=np.zeros((2, 2)), x_test=np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"b\.npz:train, b\.npz:test"):
        open_split(path)
    with pytest.raises(InputError, match="'images'"):
        open_split(save(tmp_path / "c.npz", images=np.zeros(3)))


def test_scale_of_file_and_flag(tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.uint8).reshape(2, 6, 1)
    path = save(tmp_path / "a.npz", x=x, scale=1 / 255)
    batch = next(iter(open_split(path).batches(2)))
    np.testing.assert_array_equal(batch.x, (x / 255).astype(np.float32))
    batch = next(iter(open_split(path, scale=0.5).batches(2)))
    np.testing.assert_array_equal(batch.x, x * np.float32(0.5))
    with pytest.raises(InputError, match="scale"):
        open_split(save(tmp_path / "b.npz", x=x, scale=np.nan))


@pytest.mark.parametrize(("text", "value"), [("1/255", 1 / 255), ("0.5", 0.5), ("2e-3", 2e-3), ("3", 3.0)])
def test_scales(text: str, value: float) -> None:
    assert parse_scale(text) == value


@pytest.mark.parametrize("text", ["", "1/0", "0", "nan", "a", "1e999"])
def test_bad_scales(text: str) -> None:
    with pytest.raises(UsageError, match="scale"):
        parse_scale(text)


@pytest.mark.parametrize(("text", "wanted"), [("3", slice(None, 3)), ("1:", slice(1, None)), (":4", slice(None, 4))])
def test_ranges(text: str, wanted: slice) -> None:
    assert parse_rows(text) == wanted


@pytest.mark.parametrize("text", ["", "a:b", "1:2:3:4", "1.5"])
def test_bad_ranges(text: str) -> None:
    with pytest.raises(UsageError, match="range"):
        parse_rows(text)


# --- hostile files ---


def test_header_of_four_tebibytes_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    data = npy(np.zeros(4, np.float32), shape=f"({1 << 40},)")
    with pytest.raises(InputError, match="declares 4,398,046,511,104 bytes"):
        open_split(raw_npz(tmp_path / "a.npz", [("x.npy", data)]))


def test_bomb_is_refused_and_the_way_round_it_works(tmp_path: Path) -> None:
    x = np.zeros((100, 1 << 18, 1), np.float32)
    path = save(tmp_path / "a.npz", x=x)
    assert path.stat().st_size < 200_000
    with pytest.raises(InputError, match="would unpack to 104,857,600"):
        open_split(path)
    np.savez(tmp_path / "b.npz", x=x)
    assert open_split(f"{tmp_path / 'b.npz'}:0:2").n == 2


def test_objects_are_never_loaded(tmp_path: Path) -> None:
    class Mine:
        def __reduce__(self) -> tuple[object, ...]:
            return os.abort, ()

    data = npy(np.array([Mine()], object))
    with pytest.raises(InputError, match="Python objects"):
        open_split(raw_npz(tmp_path / "a.npz", [("x.npy", data)]))


@pytest.mark.parametrize("dtype", ["<c8", "<U4", "|S4"])
def test_only_real_numbers(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(InputError, match="real numbers"):
        open_split(save(tmp_path / "a.npz", x=np.zeros((2, 3), dtype)))


def test_repeated_array_is_refused(tmp_path: Path) -> None:
    data = npy(np.zeros((2, 3), np.float32))
    with pytest.raises(InputError, match="twice"):
        open_split(raw_npz(tmp_path / "a.npz", [("x.npy", data), ("x.npy", data)]))


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_packing_is_refused(tmp_path: Path, how: int) -> None:
    with pytest.raises(InputError, match="packed in a way"):
        open_split(raw_npz(tmp_path / "a.npz", [("x.npy", npy(np.zeros((2, 3))))], how))


def test_cut_at_every_place(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.npz", x=np.arange(12.0).reshape(4, 3), y=np.arange(4)).read_bytes()
    cut = tmp_path / "cut.npz"
    for length in range(0, len(whole), 7):
        cut.write_bytes(whole[:length])
        with pytest.raises(InputError, match="cut"):
            open_split(cut)


def test_flipped_bytes_are_noticed(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(1200.0).reshape(400, 3))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[5000] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        open_split(tmp_path / "a.npz")


@pytest.mark.parametrize("save_as", [np.savez, np.savez_compressed])
def test_a_wrong_checksum_is_noticed(tmp_path: Path, save_as: Any) -> None:
    save_as(tmp_path / "a.npz", x=np.random.default_rng(0).random((300_000, 1)))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[data.rfind(b"PK\x01\x02") + 16] ^= 0xFF  # the checksum in the central directory
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        open_split(tmp_path / "a.npz")


@pytest.mark.parametrize("data", [b"", b"PK", b"x" * 1000, b"\x93NUMPY\x01\x00"])
def test_not_an_npz(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(InputError, match=r"not a whole \.npz"):
        open_split(tmp_path / "a.npz")


@pytest.mark.parametrize("header", [b"\x93NUMPY\x01\x00", b"\x93NUMPY\x09\x00" + b"a" * 90, b"nothing", b""])
def test_broken_array_header(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(InputError, match="header"):
        open_split(raw_npz(tmp_path / "a.npz", [("x.npy", header)]))


def test_missing_folder_and_pipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data file"):
        open_split(tmp_path / "none.npz")
    with pytest.raises(InputError, match="regular file"):
        open_split(tmp_path)
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(InputError, match="regular file"):
        open_split(tmp_path / "pipe.npz")
    with pytest.raises(InputError, match="cannot be read"):
        open_split("a\0b.npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((0, 4, 1))}, "empty split"),
        ({"x": np.zeros((3, 0, 1))}, "empty split"),
        ({"x": np.zeros(3)}, r"\(n, L, F\)"),
        ({"x": np.zeros((3, 4)), "y": np.zeros(2)}, "3 examples, but y"),
        ({"x": np.zeros((3, 4)), "y": np.float32(1)}, "but y"),
        ({"x": np.zeros((3, 4)), "lengths": np.ones(4, int)}, "but lengths"),
        ({"x": np.zeros((3, 4)), "lengths": np.ones(3)}, "whole numbers"),
        ({"x": np.zeros((3, 4)), "scale": np.ones(2)}, "one number"),
    ],
)
def test_inconsistent_arrays(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_split(save(tmp_path / "a.npz", **arrays))


def test_range_outside_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none are left"):
        open_split(save(tmp_path / "a.npz", x=np.zeros((3, 4))), rows=slice(5, 9))


# --- the fit to a model ---


def bad_x(value: float) -> np.ndarray:
    x = classes().x.astype(np.float64)
    x[7, 2, 1] = value
    return x


@pytest.mark.parametrize(
    ("split", "forward", "message"),
    [
        (classes(shape=(5, 2)), model(), r"2 features \(shape \(10, 5, 2\)\), the model takes 3"),
        (classes(shape=(5,)), model(), "3 features a step"),
        (classes(x=np.zeros((10, 5, 3), np.uint8)), model(), "1/255"),
        (classes(x=np.zeros((10, 2, 5, 3), np.float32)), model(), r"the model takes \(n, L\) or \(n, L, F\)"),
        (classes(x=np.zeros((0, 5, 3), np.float32)), model(), "empty split"),
        (classes(x=bad_x(np.nan)), model(), r"nan at example 7, position \(2, 1\)"),
        (classes(x=bad_x(np.inf)), model(), "inf at example 7"),
        (classes(x=bad_x(1e300)), model(), r"1e\+300 at example 7"),
        (classes(x=bad_x(1e30), scale=1e30), model(), r"1e\+30 at example 7"),
        (classes(y=None), model(), "no labels"),
        (classes(y=np.full(10, 4)), model(), "label 4 of example 0 is out of range; the model has 4 classes, 0 to 3"),
        (classes(y=np.arange(10) - 1), model(), "label -1"),
        (classes(y=np.arange(10) % 4 - 1), model(), "label -1 of example 0"),
        (classes(y=np.arange(10) % 5), model(), "label 4 of example 4"),
        (classes(y=np.array([0.0, np.inf] * 5)), model(), "fractions or NaN"),
        (classes(y=np.full(10, 2)), model(), "all 10 labels are class 2"),
        (classes(y=np.full(10, 0.5)), model(), "fractions"),
        (classes(y=np.full(10, np.nan)), model(), "fractions or NaN"),
        (classes(y=np.zeros((10, 5))), model(), r"y has shape \(10, 5\)"),
        (classes(lengths=np.full(10, 6)), model(), "x has 5 steps"),
        (classes(lengths=np.zeros(10, int)), model(), "from 0 to 0"),
        (classes(x=np.full((10, 5), 9)), model(), "tokens go from 9 to 9, the model knows 0 to 2"),
        (classes(x=np.full((10, 5), 3)), model(), "tokens go from 3 to 3"),
        (classes(x=np.full((10, 5), -1)), model(), "tokens go from -1 to -1"),
        (classes(x=np.zeros((10, 5), int), scale=0.5), model(), "tokens"),
        (classes(), model(sequence=True), "every step"),
        (classes(), model(layout="pair"), r"\(n, 2, L\)"),
        (classes(y=np.zeros((10, 3))), model(task="regression"), r"outputs have shape \(10, 4\)"),
        (classes(y=np.full((10, 4), np.inf)), model(task="regression"), r"not finite at \(0, 0\)"),
        (classes(y=np.zeros((10, 4))), model(task="regression", sequence=True), r"\(10, 5, 4\)"),
        (classes(y=np.zeros((10, 5, 4))), model(task="regression", sequence=True, output_step=2), r"\(10, 2, 4\)"),
        (classes(), model(task="regression", sequence=True, output_step=6), "has 5 steps, but .* after every 6"),
        (
            classes(lengths=np.array([5] * 9 + [1])),
            model(task="regression", sequence=True, output_step=2),
            "has 1 step, but .* after every 2",
        ),
    ],
)
def test_what_does_not_fit(split: Split, forward: Forward, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_split(split, forward)


def test_the_example_that_is_not_finite_is_named_in_large_splits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lastcli.evaluation.fitting.CHUNK_BYTES", 3 * 5 * 3 * 8)
    with pytest.raises(InputError, match=r"nan at example 7, position \(2, 1\)"):
        fit_split(classes(x=bad_x(np.nan)), model())


def test_labels_become_one_whole_number_an_example() -> None:
    fitted = fit_split(classes(y=np.arange(10.0)[:, None] % 4), model())
    assert fitted.y is not None
    assert fitted.y.dtype.kind == "i"
    np.testing.assert_array_equal(fitted.y, np.arange(10) % 4)
    assert fit_split(classes(n=1), model()).n == 1, "a single example has a single class"


def test_whole_number_targets_are_real_targets() -> None:
    fitted = fit_split(classes(y=np.arange(40).reshape(10, 4)), model(task="regression"))
    batch = fitted.batch(0, 10)
    assert batch.y is not None
    assert batch.y.dtype == np.float32
    np.testing.assert_array_equal(batch.y, np.arange(40).reshape(10, 4))


def test_flags_are_features_and_a_scale_of_one_leaves_tokens_alone() -> None:
    assert fit_split(classes(x=np.ones((10, 5, 3), bool)), model()).batch(0, 2).x.dtype == np.float32
    tokens = fit_split(classes(x=np.full((10, 5), 2), scale=1.0), model())
    assert tokens.x.max() == 2


def test_calibration_needs_no_labels() -> None:
    split = classes().without_labels()
    assert split.y is None
    assert fit_split(split, model(), labels=False).n == 10


def test_features_and_targets_get_their_axes() -> None:
    split = Split(np.zeros((4, 6), np.float32), np.ones((4, 6)))
    split = fit_split(split, model(1, 1, task="regression", sequence=True))
    assert split.x.shape == (4, 6, 1)
    assert split.y is not None
    assert split.y.shape == (4, 6, 1)
    again = fit_split(split, model(1, 1, task="regression", sequence=True))
    assert again.x.shape == (4, 6, 1)


def test_pairs_and_tokens() -> None:
    split = classes(x=np.ones((10, 2, 5), np.uint8), lengths=np.full((10, 2), 3))
    checked = fit_split(split, model(layout="pair"))
    batch = checked.batch(0, 4)
    assert batch.x.shape == (4, 2, 5)
    assert batch.x.dtype == np.int32
    with pytest.raises(InputError, match=r"\(10, 2\) is needed"):
        fit_split(classes(x=np.ones((10, 2, 5), np.uint8), lengths=np.full(10, 3)), model(layout="pair"))


# --- batches ---


@pytest.mark.parametrize("size", [1, 3, 10, 16])
def test_batches_hold_every_example_once_and_can_be_read_again(size: int) -> None:
    split = classes(lengths=np.arange(10) % 5 + 1)
    batches = split.batches(size)
    for _ in range(2):
        seen = []
        for batch in batches:
            assert batch.x.shape == (size, 5, 3)
            assert batch.lengths is not None
            assert batch.lengths.min() > 0
            real = batch.weights > 0
            assert batch.count == real.sum()
            assert real[: batch.count].all()
            seen.append(batch.x[real])
        np.testing.assert_array_equal(np.concatenate(seen), split.x)
    assert len(batches) == -(-10 // size)


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="batch size"):
        classes().batches(0)


def test_random_inputs_fit_the_model() -> None:
    for forward in (model(), model(layout="pair")):
        split = random_split(forward, n=3, length=7, seed=5)
        assert fit_split(split, forward, labels=False).n == 3
        np.testing.assert_array_equal(split.x, random_split(forward, n=3, length=7, seed=5).x)
    assert random_split(model(sequence=True, output_step=90)).x.shape == (8, 90, 3)


def test_data_knows_no_model() -> None:
    program = (
        "import sys, lastcli.evaluation.data;"
        "print([name for name in sys.modules if name.startswith(('lastcli.families', 'lastcli.model', 'jax'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- what is rare in a file ---


def test_a_header_of_the_second_version(tmp_path: Path) -> None:
    x, buffer = np.arange(12.0).reshape(3, 4), io.BytesIO()
    np.lib.format.write_array(buffer, x, version=(2, 0))
    path = raw_npz(tmp_path / "a.npz", [("x.npy", buffer.getvalue())])
    np.testing.assert_array_equal(open_split(path).x, x)


@pytest.mark.parametrize("limit", [None, "8:9"])
def test_a_zip_that_promises_more_than_it_holds(tmp_path: Path, limit: str | None) -> None:
    x = np.random.default_rng(0).normal(size=(6, 4))
    path = raw_npz(tmp_path / "a.npz", [("x.npy", npy(x, "(9, 4)"))])
    data = bytearray(path.read_bytes())
    size = data.index(b"PK\x01\x02") + 24  # of the unpacked member, in the directory of the zip
    promised = int.from_bytes(data[size : size + 4], "little") + 3 * 4 * x.itemsize
    data[size : size + 4] = promised.to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"array 'x': damaged bytes \(cut short\)"):
        load_split(path, limit=limit)


def test_a_mean_is_one_number_or_one_for_each_feature() -> None:
    for wrong in (np.zeros((2, 2)), np.zeros(0), np.array(["a"])):
        with pytest.raises(InputError, match="one number, or one for each feature, is needed"):
            checked_numbers(wrong, "mean")


def test_series_side_by_side_have_one_length() -> None:
    forward = model(1, 2, layout="series", series=3, task="regression")
    x = np.zeros((4, 3, 5, 1), np.float32)
    assert fit_split(Split(x), forward, labels=False).x.shape == x.shape
    with pytest.raises(InputError, match="sequences side by side have one length; leave 'lengths' out"):
        fit_split(Split(x, lengths=np.full(4, 5)), forward, labels=False)
