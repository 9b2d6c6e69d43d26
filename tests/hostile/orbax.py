"""Damage to an orbax folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lastcli import containers
from lastcli.containers import TensorSource
from tests.hostile.case import Case

__all__ = ["ORBAX"]


def _ob(name: str, says: str, change: Callable[[Path], Path | None]) -> Case:
    """A sound orbax folder as `last` writes it (params/w, step), then changed; `change` may return another path."""

    def build(folder: Path) -> Path:
        path = folder / "orbax"
        source = TensorSource.of("params/w", np.arange(64, dtype=np.float32).reshape(8, 8))
        containers.write(path, [source], metadata={}, extras={"step": 3})
        return change(path) or path

    return Case(name, build, says)


def _edit(file: str, change: Callable[[dict], None]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        document = json.loads((path / file).read_text())
        change(document)
        (path / file).write_text(json.dumps(document))

    return edit


def _tree_entry(document: dict) -> dict:
    return next(entry for key, entry in document["tree_metadata"].items() if "params" in key)


def _value(document: dict) -> dict:
    return _tree_entry(document)["value_metadata"]


def _flip(path: Path) -> None:
    file = path / "params.w" / "0.0"
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)


def _uncommit(path: Path) -> None:
    (path / "commit_success.txt").unlink()
    _edit("_CHECKPOINT_METADATA", lambda document: document.update(commit_timestamp_nsecs=None))(path)


def _escape(document: dict) -> None:
    _tree_entry(document)["key_metadata"] = [{"key": "..", "key_type": 2}, {"key": "/../../x", "key_type": 2}]


def _more(*keys: str, kind: str = "None") -> Callable[[dict], None]:
    """One more entry of the tree."""
    steps = [{"key": key, "key_type": 2} for key in keys]
    return lambda document: document["tree_metadata"].update(
        more={"key_metadata": steps, "value_metadata": {"value_type": kind}}
    )


ORBAX: list[Case] = [
    _ob("temporary_name", "unfinished", lambda path: path.rename(path.parent / "x.orbax-checkpoint-tmp-17")),
    _ob("no_commit_mark", "unfinished", _uncommit),
    _ob("emptied_tree", "not valid JSON", lambda path: (path / "_METADATA").write_text("") and None),
    _ob("tree_a_list", "not a JSON object", lambda path: (path / "_METADATA").write_text("[]") and None),
    _ob("tree_deleted", "_METADATA", lambda path: (path / "_METADATA").unlink()),
    _ob("tree_without_entries", "tree_metadata", _edit("_METADATA", lambda d: d.pop("tree_metadata"))),
    _ob("entry_damaged", "damaged", _edit("_METADATA", lambda d: _tree_entry(d).update(key_metadata=3))),
    _ob("entry_unknown_type", "type pickle", _edit("_METADATA", lambda d: _value(d).update(value_type="pickle"))),
    _ob("leaf_below_a_leaf", "below a leaf", _edit("_METADATA", _more("params", "w", "x"))),
    _ob("leaf_there_twice", "'more' twice", _edit("_METADATA", _more("params", "w"))),
    _ob("text_missing", "text 'note' is missing", _edit("_METADATA", _more("note", kind="string"))),
    _ob("leads_out", "leads out", _edit("_METADATA", _escape)),
    _ob("array_metadata_deleted", "no such file", lambda path: (path / "params.w" / ".zarray").unlink()),
    _ob("array_metadata_emptied", "JSON", lambda path: (path / "params.w" / ".zarray").write_text("") and None),
    _ob("shape_not_numbers", "sound shape", _edit("params.w/.zarray", lambda d: d.update(shape=["8", 8]))),
    _ob("shape_impossible", "impossible", _edit("params.w/.zarray", lambda d: d.update(shape=[2**40, 2**40]))),
    _ob("shape_2_62_beside_zero", "impossible", _edit("params.w/.zarray", lambda d: d.update(shape=[2**62, 0]))),
    _ob("shape_smaller", "not fit", _edit("params.w/.zarray", lambda d: d.update(shape=[8, 7]))),
    _ob("chunks_of_nothing", "not fit", _edit("params.w/.zarray", lambda d: d.update(chunks=[0, 8]))),
    _ob("chunk_beyond", "beyond", lambda path: (path / "params.w" / "1.0").write_bytes(bytes(256)) and None),
    _ob("dtype_big_endian", "dtype >f4", _edit("params.w/.zarray", lambda d: d.update(dtype=">f4"))),
    _ob("write_shape_too_large", "do not fit", _edit("_METADATA", lambda d: _value(d).update(write_shape=[16, 8]))),
    _ob("manifest_named_but_missing", "missing", _edit("_METADATA", lambda d: d.update(use_ocdbt=True))),
    _ob("flipped_byte", "not as it was written", _flip),
    _ob("chunk_deleted", "cannot be read", lambda path: (path / "params.w" / "0.0").unlink()),
    _ob("chunk_cut", "cannot be read", lambda path: os.truncate(path / "params.w" / "0.0", 17)),
]  # fmt: skip
