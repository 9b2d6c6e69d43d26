"""Parquet and Arrow files, and folders that Hugging Face's `Dataset.save_to_disk` wrote, through pyarrow.

A folder of `save_to_disk` is read without the datasets library: `state.json` names Arrow files, `dataset_info.json` the
classes, and a `dataset_dict.json` the splits, each a folder of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lastcli.containers.inputs import read_small, shown
from lastcli.errors import InputError
from lastcli.evaluation.readers.base import (
    SUSPICIOUS_BYTES,
    SUSPICIOUS_RATIO,
    Found,
    Reader,
    Request,
    first_line,
    missing_library,
    require_regular,
)
from lastcli.evaluation.readers.table import Column, from_table
from lastcli.mappings import parse_json

__all__ = ["ARROW", "DATASETS", "PARQUET", "read_arrow", "read_datasets", "read_parquet"]

_STATE, _SPLITS, _INFO = "state.json", "dataset_dict.json", "dataset_info.json"
_JSON_LIMIT = 16 << 20


def read_parquet(request: Request) -> Found:
    """A file, or the files of a folder in the order of their names, those that begin with the part's name."""
    _library(request.path)
    files = [request.path]
    if request.path.is_dir():
        start = "" if request.part is None else request.part
        files = sorted(path for path in request.path.glob("*.parquet") if path.name.startswith(start))
        _require_one_split(request, files)
    else:
        request.refuse_part("a Parquet file")
    return from_table(_columns([_parquet(path) for path in files], {}, request.where), request)


def read_arrow(request: Request) -> Found:
    """One Arrow file, in the file or the stream format."""
    _library(request.path)
    request.refuse_part("an Arrow file")
    return from_table(_columns([_arrow(request.path)], {}, request.where), request)


def read_datasets(request: Request) -> Found:
    """A folder of `save_to_disk`, of one split or of several."""
    _library(request.path)
    folder = request.path
    if (folder / _SPLITS).is_file():
        splits = _json(folder / _SPLITS).get("splits")
        names = [name for name in splits if isinstance(name, str)] if isinstance(splits, list) else []
        part = next((name for name in names if name == request.part), None)
        if part is None:
            held = ", ".join(f"{folder.name}/{shown(name)}" for name in names[:8])
            raise InputError(f"{request.where} holds several splits; name one of them: {held}.")
        folder = folder / part
    else:
        request.refuse_part("a folder of one split")
    files = _json(folder / _STATE).get("_data_files")
    files = files if isinstance(files, list) else None
    named: list[Any] = [entry.get("filename") for entry in files or () if isinstance(entry, dict)]
    if not named:
        raise InputError(f"{shown(folder / _STATE, 1000)} names no data files; save the data set again.")
    for name in named:
        if not isinstance(name, str) or Path(name).name != name:
            raise InputError(f"{shown(folder / _STATE, 1000)} names a file outside its folder: {shown(name)!r}.")
    features = _json(folder / _INFO).get("features") if (folder / _INFO).is_file() else None
    tables = [_arrow(folder / name) for name in named]
    return from_table(_columns(tables, features if isinstance(features, dict) else {}, request.where), request)


def _library(path: Path) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise missing_library(path, "this format", "pyarrow", "parquet") from None


def _require_one_split(request: Request, files: list[Path]) -> None:
    """Shards are named `train-00000-of-00002.parquet`; a folder with several such names needs a part."""
    names = sorted({path.stem.partition("-")[0] for path in files})
    if not files or len(names) > 1:
        held = sorted({path.stem.partition("-")[0] for path in request.path.glob("*.parquet")})
        parts = ", ".join(f"{request.path.name}/{shown(name)}" for name in held[:8])
        raise InputError(f"{request.where} holds several splits; name one of them: {parts}.")


def _json(path: Path) -> Mapping[str, Any]:
    where = shown(path, 1000)
    found = parse_json(read_small(path, _JSON_LIMIT), where)
    if not isinstance(found, dict):
        raise InputError(f"{where} is no mapping; save the data set again.")
    return found


def _parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = require_regular(path)
    try:
        with pq.ParquetFile(path) as file:
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            values = sum(group.column(j).num_values for group in groups for j in range(group.num_columns))
            _refuse_bomb(path, 8 * values, size)
            return file.read(use_threads=False)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InputError(f"{shown(path, 1000)} is no whole Parquet file ({first_line(error)}).") from error


def _refuse_bomb(path: Path, declared: int, size: int) -> None:
    if declared > SUSPICIOUS_BYTES and declared > SUSPICIOUS_RATIO * size:
        raise InputError(
            f"{shown(path, 1000)}: {size:,} bytes would unpack to {declared:,}; if that is meant, give it as .npy."
        )


def _arrow(path: Path) -> Any:
    import pyarrow as pa

    require_regular(path)
    try:
        with pa.OSFile(str(path)) as file:
            start = file.read(6)
            file.seek(0)
            reader = pa.ipc.open_file(file) if start == b"ARROW1" else pa.ipc.open_stream(file)
            table = reader.read_all()
            table.validate(full=True)
            return table
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InputError(f"{shown(path, 1000)} is no whole Arrow file ({first_line(error)}).") from error


def _columns(tables: list[Any], features: Mapping[str, Any], where: str) -> dict[str, Column]:
    """Columns of all files behind one another."""
    import pyarrow as pa

    names = tables[0].column_names
    if len(set(names)) < len(names):
        raise InputError(f"{where} names a column twice.")
    if any(table.column_names != names for table in tables):
        raise InputError(f"{where}: its files have different columns.")
    if not sum(table.num_rows for table in tables):
        raise InputError(f"{where} is an empty split: it has no rows.")
    found = {}
    for name in names:
        chunks = [chunk for table in tables for chunk in table.column(name).chunks if len(chunk)]
        starts = np.cumsum([0, *map(len, chunks)])
        where_column = f"{where}: column {shown(name)!r}"
        try:
            values = [
                _values(chunk, np.arange(start, start + len(chunk)), where_column)
                for start, chunk in zip(starts, chunks)
            ]
        except pa.ArrowException as error:
            raise InputError(f"{where_column} cannot be read ({first_line(error)}).") from error
        found[name] = Column(np.concatenate(values), _class_names(features.get(name)))
    return found


def _class_names(feature: Any) -> tuple[str, ...]:
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _values(chunk: Any, rows: np.ndarray, where: str) -> np.ndarray:
    """Numbers or text (rows,), or an object array of one array a row; `rows` are their numbers, for messages."""
    import pyarrow as pa

    if isinstance(chunk, pa.ExtensionArray):
        chunk = chunk.storage
    kind = chunk.type
    if pa.types.is_dictionary(kind):
        chunk, kind = chunk.dictionary_decode(), kind.value_type
    if chunk.null_count:
        raise InputError(f"{where} has no value in row {rows[_first_null(chunk)]}.")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(chunk.to_pylist(), dtype=np.str_)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.asarray(chunk.to_numpy(zero_copy_only=False))
    if _is_list(kind):
        return _lists(chunk, rows, where)
    raise InputError(f"{where} is of type {shown(kind)}; numbers, text or lists of numbers are needed.")


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _lists(chunk: Any, rows: np.ndarray, where: str) -> np.ndarray:
    """One array a row, (L,) or (L, F)."""
    sizes = _sizes(chunk)
    values = _values(chunk.flatten(), np.repeat(rows, sizes), where)
    if values.dtype.kind in "US":
        raise InputError(f"{where} holds lists of text; numbers are needed.")
    found = np.empty(len(chunk), object)
    for i, part in enumerate(np.split(values, np.cumsum(sizes)[:-1])):
        if part.dtype != object:
            found[i] = part
            continue
        if len({step.shape for step in part}) > 1:
            raise InputError(f"{where}: row {rows[i]} is ragged: its steps have different numbers of features.")
        found[i] = np.stack(list(part)) if len(part) else np.zeros((0, 0))
    return found


def _sizes(chunk: Any) -> np.ndarray:
    import pyarrow.compute as pc

    return np.asarray(pc.list_value_length(chunk).to_numpy(zero_copy_only=False)).astype(np.int64)


def _first_null(chunk: Any) -> int:
    return int(np.argmax(np.asarray(chunk.is_null().to_numpy(zero_copy_only=False))))


def _holds(*names: str) -> Any:
    return lambda path: any(any(path.glob(name)) for name in names)


PARQUET = Reader(
    "Parquet",
    read_parquet,
    suffixes=(".parquet", ".pq"),
    begins=(b"PAR1",),
    folder=_holds("*.parquet"),
    extra="parquet",
    parts="train-00000-of-00001.parquet",
)
ARROW = Reader("Arrow", read_arrow, suffixes=(".arrow", ".feather"), begins=(b"ARROW1",), extra="parquet")
DATASETS = Reader(
    "datasets", read_datasets, folder=_holds(_STATE, _SPLITS), extra="parquet", parts="its splits, FOLDER/train"
)
