"""Any names, dtypes and shapes through any two containers: equal bytes, or one sentence and nothing written."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lastcli import containers
from lastcli.containers.dtypes import ITEMSIZE
from lastcli.errors import OutputError
from tests.containers.samples import contents, copy, put, same_bits
from tests.containers.test_round_trip import METADATA, NAMES, need, same_extras

PAIRS = [(first, second) for first in NAMES for second in NAMES]
# Parts that names are made of: dots, separators of other libraries, numbers that look like lists, what a terminal or a
# file system takes for something else.
PARTS = st.one_of(
    st.sampled_from(["params", "a", "b", "a.b", "0", "1", "10", "01", "-1", "..", ".", "", "w" * 300, "é", "e\u0301"]),
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6),
)
NAME = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
PLAIN = st.lists(st.sampled_from(["enc", "a.b", "0", "1", "ü", "x-y"]), min_size=3, max_size=3).map("/".join)
SHAPE = st.lists(st.sampled_from([0, 1, 2, 3, 7]), max_size=4).map(tuple)
EXTRA = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=9),
    st.lists(st.integers(), min_size=1, max_size=3),
)  # fmt: skip
DTYPES = sorted(ITEMSIZE)


def typed(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, name))


@st.composite
def tensors(draw, names=NAME, dtypes=tuple(DTYPES)):
    """Random bits under random names; only 0 and 1 in a mask."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    arrays = {}
    for name in draw(st.lists(names, min_size=1, max_size=5, unique=True)):
        dtype, shape = typed(draw(st.sampled_from(dtypes))), draw(SHAPE)
        bits = rng.integers(0, 2 if dtype.kind == "b" else 256, (*shape, dtype.itemsize), np.uint8)
        arrays[name] = bits.view(dtype).reshape(shape)
    return arrays


def refused(write) -> bool:
    """Whether it is refused, in one sentence."""
    try:
        write()
    except OutputError as error:
        return "\n" not in str(error) or pytest.fail(str(error))
    return False


class Folder:
    """An empty folder for one example, gone after it."""

    def __enter__(self) -> Path:
        self.path = Path(tempfile.mkdtemp())
        return self.path

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.path)


@pytest.mark.parametrize(("first", "second"), PAIRS)
@settings(max_examples=12, deadline=None)
@given(arrays=tensors())
def test_whatever_is_written_is_read_back_and_converted_or_refused_whole(first, second, arrays):
    need(first, second)
    with Folder() as folder:
        source, target = folder / ("a" + NAMES[first]), folder / NAMES[second]
        if refused(lambda: put(source, arrays, METADATA)):
            assert list(folder.iterdir()) == []
            return
        same_bits(contents(source), arrays)
        before = {path.name for path in folder.iterdir()}
        with containers.open_reader(source) as reader:
            if refused(lambda: copy(reader, target)):
                assert {path.name for path in folder.iterdir()} == before
                return
        same_bits(contents(target), arrays)


@pytest.mark.parametrize(("first", "second"), PAIRS)
@settings(max_examples=6, deadline=None)
@given(
    arrays=tensors(PLAIN, ("bool", "int8", "int64", "uint8", "float16", "bfloat16", "float32", "float64", "complex64")),
    extras=st.dictionaries(st.sampled_from(["step", "cfg/rate", "note", "best"]), EXTRA),
)
def test_plain_names_are_never_refused_and_other_leaves_come_along(first, second, arrays, extras):
    need(first, second)
    with Folder() as folder:
        put(folder / ("a" + NAMES[first]), arrays, METADATA, extras=extras)
        with containers.open_reader(folder / ("a" + NAMES[first])) as reader:
            copy(reader, folder / NAMES[second])
        same_bits(contents(folder / NAMES[second]), arrays)
        with containers.open_reader(folder / NAMES[second]) as reader:
            same_extras(reader.extras, extras)
            assert {key: value for key, value in reader.metadata.items() if not key.startswith("last.")} == {
                key: value for key, value in METADATA.items() if not key.startswith("last.")
            }


@settings(max_examples=25, deadline=None)
@given(arrays=tensors(dtypes=("float32", "bfloat16", "int8")), size=st.integers(1, 200))
def test_shards_of_any_size_hold_the_same_bytes(arrays, size):
    with Folder() as folder:
        if refused(lambda: put(folder / "x", arrays, METADATA, shard_bytes=size)):
            assert list(folder.iterdir()) == []
            return
        same_bits(contents(folder / "x"), arrays)
        with containers.open_reader(folder / "x") as reader:
            assert dict(reader.metadata) == METADATA


@pytest.mark.parametrize("kind", NAMES)
def test_a_tensor_of_several_megabytes_comes_back(kind, tmp_path):
    need(kind)
    arrays = {"big/w": np.random.default_rng(0).integers(0, 256, 5_000_001, np.uint8), "small": np.ones(())}
    put(tmp_path / NAMES[kind], arrays)
    same_bits(contents(tmp_path / NAMES[kind]), arrays)


@pytest.mark.parametrize("kind", NAMES)
def test_pruning_nothing_leaves_every_byte(kind, last, tiny):
    need(kind)
    assert last("convert", tiny, NAMES[kind], "-q")[0] == 0
    before = contents(tiny.with_name(NAMES[kind]))
    out = "out" + NAMES[kind]
    code, _, err = last("prune", NAMES[kind], "--ratio", "0", "--out", out, "-q")
    assert code == 0, err
    same_bits(contents(tiny.with_name(out)), before)
    assert last("verify", NAMES[kind], out, "-q")[0] == 0
