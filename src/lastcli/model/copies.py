"""Which of several models of one file is meant: averaged copies of the weights beside the weights, or models by path.

An averaged copy (EMA, SWA, a momentum teacher) has the names of the model below another path: `ema_model.` beside
`online_model.`, `ema_params/` beside `params/`, `ema/` in a TrainState. Both are whole models, so that one is chosen
and never both are pruned as one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from lastcli.containers.base import TensorInfo
from lastcli.containers.inputs import shown
from lastcli.errors import UsageError
from lastcli.model.naming import Naming, parts_of

__all__ = ["Chosen", "choose"]

_AVERAGED = re.compile(
    r"(?:.*_)?(?:ema|swa|averaged|avg|shadow|teacher|momentum|target|polyak)s?(?:_.*)?", re.IGNORECASE
)

Path = tuple[str, ...]
Tensors = Mapping[str, TensorInfo]


class Chosen(NamedTuple):
    """One model of a file.

    Attributes:
        name: how `--name` names it, None where the file holds no other.
        replaced: as in `Naming`.
        others: of every other model its name and its tensors.
        at: the path at which families find it.
    """

    name: str | None = None
    replaced: tuple[tuple[Path, Path], ...] = ()
    others: Mapping[str, frozenset[str]] = MappingProxyType({})
    at: Path = ()


class _Pair(NamedTuple):
    """A model and its averaged copy, by path."""

    plain: Path
    averaged: Path


def choose(tensors: Tensors, asked: str | None, is_model: Callable[[Tensors], bool], where: str) -> Chosen:
    """The model that is asked for, or the only one.

    Args:
        tensors: everything in the file that may be a model.
        asked: what the user calls it, or None.
        is_model: whether there is a state space layer among tensors.
        where: the file, for messages.

    Raises:
        UsageError: there are copies and none is named, or the named one is not there.
    """
    paths = {name: parts_of(name) for name in tensors}
    pairs = _pairs(paths.values())
    models = [pair for pair in pairs if is_model(_below(tensors, paths, pair.averaged))]
    if asked is None:
        if not models:
            return Chosen()
        names = [_text(path) for path in dict.fromkeys(side for pair in models for side in (pair.plain, pair.averaged))]
        raise UsageError(
            f"{where} holds one model and averaged copies of it: {_quoted(names)}; choose one with "
            f"{' or '.join(f'--name {shown(name)}' for name in names)}."
        )
    wanted = _path_of(asked)
    for pair in models:
        if wanted == pair.averaged:
            return _averaged(paths, pairs, pair, asked)
        if _text(wanted) == _text(pair.plain):
            return Chosen(asked, (), {_text(p.averaged): _names_below(paths, p.averaged) for p in pairs}, wanted)
    return _by_path(tensors, paths, wanted, asked, is_model, where)


def _averaged(paths: Mapping[str, Path], pairs: list[_Pair], pair: _Pair, asked: str) -> Chosen:
    """A copy in the place of the model, and the copies of its other collections in theirs."""
    at = [p for p in pairs if p.plain == pair.plain].index(pair)
    beside = {}
    for other in pairs:
        copies = [p for p in pairs if p.plain == other.plain]
        beside[other.plain] = copies[min(at, len(copies) - 1)]
    beside[pair.plain] = pair
    gone = [p for p in pairs if p not in beside.values()]
    others = {_text(p.averaged): _names_below(paths, p.averaged) for p in gone}
    copied = {paths[name][len(p.averaged) :] for p in pairs for name in _names_below(paths, p.averaged)}
    for plain in beside:
        own = _names_below(paths, plain)
        others[_text(plain)] = own if plain else frozenset(name for name in own if paths[name] in copied)
    return Chosen(asked, tuple((p.averaged, p.plain) for p in beside.values()), others, pair.plain)


def _by_path(
    tensors: Tensors,
    paths: Mapping[str, Path],
    wanted: Path,
    asked: str,
    is_model: Callable[[Tensors], bool],
    where: str,
) -> Chosen:
    """The model below a path; every other path of its depth that holds a layer is another model."""
    depth = len(wanted)
    heads = dict.fromkeys(path[:depth] for path in paths.values() if len(path) > depth)
    models = [head for head in heads if is_model(_below(tensors, paths, head))]
    if wanted not in models:
        listed = _quoted([_text(head) for head in models]) or "one without a name"
        raise UsageError(f"{where} has no model '{shown(asked)}' for --name; it has {listed}.")
    return Chosen(asked, (), {_text(head): _names_below(paths, head) for head in models if head != wanted}, wanted)


def _pairs(paths: Iterable[Path]) -> list[_Pair]:
    """Every averaged copy whose names are all there a second time, with the path of the second time."""
    paths = list(paths)
    everything = set(paths)
    below: dict[Path, list[Path]] = {}
    for path in paths:
        at = next((i for i, part in enumerate(path[:-1]) if _AVERAGED.fullmatch(part)), None)
        if at is not None:
            below.setdefault(path[: at + 1], []).append(path[at + 1 :])
    found = []
    for head, rests in below.items():
        for copy, own in _numbered(head, rests):
            plain = _plain_of(own, everything)
            if plain is not None:
                found.append(_shortened(plain, copy, own))
    return found


def _numbered(head: Path, rests: list[Path]) -> list[tuple[Path, list[Path]]]:
    """A list of copies (`ema_models.0.`, `ema_models.1.`) as one copy each."""
    if not all(rest[0].isdigit() and len(rest) > 1 for rest in rests):
        return [(head, rests)]
    copies: dict[Path, list[Path]] = {}
    for rest in rests:
        copies.setdefault((*head, rest[0]), []).append(rest[1:])
    return list(copies.items())


def _plain_of(rests: list[Path], everything: set[Path]) -> Path | None:
    """The path below which all of `rests` lie, itself no copy."""
    longest = max(rests, key=len)
    heads = {path[: len(path) - len(longest)] for path in everything if path[len(path) - len(longest) :] == longest}
    fits = [
        head
        for head in sorted(heads, key=lambda head: (not head, len(head), head))
        if not any(map(_AVERAGED.fullmatch, head)) and all((*head, *rest) in everything for rest in rests)
    ]
    return fits[0] if fits else None


def _shortened(plain: Path, copy: Path, rests: list[Path]) -> _Pair:
    """The pair in the longest paths that tell them apart, then without what both end in: `ema/params`, `params`."""
    while not plain and len({rest[0] for rest in rests}) == 1 and all(len(rest) > 1 for rest in rests):
        first = rests[0][0]
        plain, copy, rests = (*plain, first), (*copy, first), [rest[1:] for rest in rests]
    while len(plain) > 1 and len(copy) > 1 and plain[-1] == copy[-1]:
        plain, copy = plain[:-1], copy[:-1]
    return _Pair(plain, copy)


def _below(tensors: Tensors, paths: Mapping[str, Path], head: Path) -> Tensors:
    own = {name: tensors[name] for name in _names_below(paths, head)}
    view, _ = Naming.of(own).view(own)
    return view


def _names_below(paths: Mapping[str, Path], head: Path) -> frozenset[str]:
    return frozenset(name for name, path in paths.items() if path[: len(head)] == head and len(path) > len(head))


def _path_of(asked: str) -> Path:
    """What a user calls a model, as parts without wrappers."""
    return parts_of(asked.rstrip("/.") + "/x")[:-1]


def _text(path: Path) -> str:
    """What `--name` calls the model at a path; the one whose names stand at the top is called "model"."""
    return "/".join(path) or "model"


def _quoted(names: Iterable[str]) -> str:
    *first, last = [f"'{shown(name)}'" for name in names] or [""]
    return f"{', '.join(first)} and {last}" if first else last
