"""`.tsv` files of the Long Range Arena: ListOps, text and retrieval, as tokens.

Three layouts are known: a first line with names (`Source`, `Target`), lines `label<TAB>text`, and the retrieval task's
`label<TAB>id<TAB>id<TAB>text<TAB>text`, which becomes pairs (n, 2, L). A vocabulary (`vocab.json`: token to number, or
`vocab.txt`: a token a line, numbered from 0) beside the file, or beside the model, says which number a token has.
Without one, text is bytes as the benchmark's own encoder numbers them: value + 1, and 0 is padding. ListOps has no such
order: its published vocabularies are made from the training data, so that a model comes with its own.
Source: Tay et al., arXiv 2011.04006.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lastcli.containers.inputs import read_small, shown
from lastcli.errors import InputError
from lastcli.evaluation.readers.base import Found, Reader, Request, first_line, require_regular
from lastcli.evaluation.readers.padding import padded
from lastcli.mappings import parse_json

__all__ = ["READER", "read"]

_TEXT = ("source", "text", "sentence", "x")
_LABEL = ("target", "label", "y")
_OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
_UNKNOWN, _PADDING = "<unk>", "<pad>"
_LIMIT = 16 << 20


@dataclass(frozen=True)
class _Rows:
    """Labels and one or two texts an example, and the line of the first example."""

    labels: list[str]
    texts: list[tuple[str, ...]]
    first: int


def read(request: Request) -> Found:
    """See `Reader.read`."""
    request.refuse_columns("a .tsv file")
    path = _member(request)
    rows = _rows(path)
    where = shown(path, 1000)
    y = np.array([_label(text, f"{where}: line {rows.first + i}") for i, text in enumerate(rows.labels)], np.int64)
    encode, fill = _encoder(request, path, rows)
    encoded = [encode(text, f"{where}: line {rows.first + i}") for i, texts in enumerate(rows.texts) for text in texts]
    x, lengths = padded(encoded, where, "text", fill)
    pair = len(rows.texts[0])
    if pair == 1:
        return Found(x, y, lengths)
    return Found(x.reshape(-1, pair, x.shape[1]), y, None if lengths is None else lengths.reshape(-1, pair))


def _member(request: Request) -> Path:
    if not request.path.is_dir():
        request.refuse_part("a .tsv file")
        return request.path
    files = sorted(request.path.glob("*.tsv"))
    wanted = [path for path in files if request.part is None or request.part in path.stem.replace(".", "_").split("_")]
    if len(wanted) != 1:
        held = ", ".join(path.name for path in files[:8])
        raise InputError(f"{request.where} holds {held}; name one file, or one part: {request.path.name}/test.")
    return wanted[0]


def _rows(path: Path) -> _Rows:
    require_regular(path)
    where = shown(path, 1000)
    try:
        # no quotes, and no limit of a cell: a text may hold one alone, and be long
        with path.open(encoding="utf-8", newline="\n") as file:
            lines = [line.split("\t") for line in map(_without_end, file) if line]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{where} could not be read as tab-separated text ({first_line(error)}).") from error
    if not lines:
        raise InputError(f"{where} is an empty file.")
    names = [cell.strip().lower() for cell in lines[0]]
    text = next((names.index(name) for name in _TEXT if name in names), None)
    label = next((names.index(name) for name in _LABEL if name in names), None)
    header = text is not None and label is not None
    columns: tuple[int, ...]
    if text is not None and label is not None:
        columns = (label, text)
    elif len(names) == 5:
        columns = (0, 3, 4)
    elif len(names) == 2:
        columns = (0, 1)
    else:
        raise InputError(
            f"{where}: its first line has {len(names)} cells; names such as Source and Target are needed, or label and "
            "text, or label, two ids and two texts."
        )
    body = lines[1:] if header else lines
    first = 2 if header else 1
    if not body:
        raise InputError(f"{where} is an empty split: it has no rows below the names of its columns.")
    for number, row in enumerate(body, first):
        if len(row) != len(names):
            raise InputError(f"{where}: line {number} has {len(row)} cells, the first line has {len(names)}.")
    return _Rows([row[columns[0]] for row in body], [tuple(row[i] for i in columns[1:]) for row in body], first)


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


def _label(text: str, where: str) -> int:
    try:
        value = float(text)
        if value == int(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise InputError(f"{where}: the label is {shown(text, 40)!r}; a whole number is needed.")


def _encoder(request: Request, path: Path, rows: _Rows) -> tuple[Callable[[str, str], np.ndarray], int]:
    """How a text becomes tokens, and the token of the padding."""
    found = _vocabulary(request, path)
    if found is not None:
        file, vocabulary = found
        words = any(len(token) > 1 for token in vocabulary if not token.startswith("<"))
        return lambda text, where: _by_vocabulary(text, vocabulary, words, file, where), vocabulary.get(_PADDING, 0)
    if any(operator in rows.texts[0][0] for operator in _OPERATORS):
        raise InputError(
            f"{shown(path, 1000)} holds ListOps, whose tokens have the numbers of the model's vocabulary; put it "
            "beside the file as vocab.txt (a token a line, numbered from 0) or vocab.json (token: number)."
        )
    return lambda text, where: np.frombuffer(text.encode(), np.uint8).astype(np.uint16) + 1, 0


def _by_vocabulary(text: str, vocabulary: dict[str, int], words: bool, file: Path, where: str) -> np.ndarray:
    tokens = text.split() if words else list(text)
    if words:
        # some write the closing bracket as X, and leave out the parentheses, which say nothing
        tokens = [token for token in tokens if token not in "()" or token in vocabulary]
        if "]" not in vocabulary and "X" in vocabulary:
            tokens = ["X" if token == "]" else token for token in tokens]
    unknown = vocabulary.get(_UNKNOWN)
    numbers = [vocabulary.get(token, unknown) for token in tokens]
    if None in numbers:
        token = tokens[numbers.index(None)]
        raise InputError(f"{where}: the token {shown(token, 40)!r} is not in {shown(file, 1000)}.")
    return np.array(numbers, np.int32)


def _vocabulary(request: Request, path: Path) -> tuple[Path, dict[str, int]] | None:
    folders = [path.parent, *([] if request.beside is None else [request.beside()])]
    for file in (folder / name for folder in folders for name in ("vocab.json", "vocab.txt")):
        if not file.is_file():
            continue
        raw, where = read_small(file, _LIMIT), shown(file, 1000)
        if file.suffix == ".json":
            found = parse_json(raw, where)
            if not isinstance(found, dict) or not all(type(i) is int and 0 <= i < 2**31 for i in found.values()):
                raise InputError(f"{where} must map tokens to whole numbers.")
            return file, found
        try:
            tokens = raw.decode("utf-8").split("\n")
        except UnicodeDecodeError:
            raise InputError(f"{where} is no UTF-8 text.") from None
        tokens = [token.removesuffix("\r") for token in tokens]
        return file, {token: number for number, token in enumerate(tokens) if token}
    return None


READER = Reader(
    "LRA",
    read,
    suffixes=(".tsv",),
    folder=lambda path: any(path.glob("*.tsv")),
    parts="basic_train.tsv, new_aan_pairs.train.tsv",
)
