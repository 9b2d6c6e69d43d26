"""Names that the parts of a state space layer have in code that people write: what a tensor is called, taken apart.

A name is read as words (`log_A_real` is log, a, real; `logDt` is log, dt): one of them is the quantity, the others say
which half of a complex number it is, or that it is a logarithm. What the words do not say, complex numbers do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lastcli.containers.base import TensorInfo
from lastcli.families.base import Tensors
from lastcli.families.parts.leaves import canonical, groups

__all__ = ["Quantity", "looks_like_states", "pattern_of", "quantities"]

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_KINDS = {
    "poles": ("a", "lambda", "lambdas", "lamda", "lambd", "lam", "pole", "poles", "eigenvalues", "eigs", "eig", "w"),
    "step": ("dt", "step", "steps", "delta", "timescale", "timestep"),
    "B": ("b", "bp"),
    "C": ("c",),
    "D": ("d",),
    "P": ("p",),
    "Q": ("q",),
    "nu": ("nu",),
    "theta": ("theta",),
    "gamma": ("gamma",),
}
_OF_WORD = {word: kind for kind, words in _KINDS.items() for word in words}
_REAL, _IMAG, _LOG = {"re", "real"}, {"im", "imag", "imaginary"}, {"log", "inv", "ln"}
# Words that say nothing about what a tensor is.
_EMPTY = {"param", "params", "raw", "mat", "matrix", "bar", "tilde", "hat", "vec", "init", "diag", "ri", "complex"}
# What makes a state space layer: poles, and what drives or reads them.
_POLES, _OTHERS = {"poles", "nu"}, {"step", "C", "P", "theta"}


@dataclass(frozen=True)
class Quantity:
    """What a tensor seems to be.

    Attributes:
        info: the tensor.
        kind: a key of `_KINDS`.
        half: "real", "imag" or "" for the whole number.
        log: whether its logarithm is stored.
        pair: whether a last axis of 2 holds (real, imaginary).
    """

    info: TensorInfo
    kind: str
    half: str
    log: bool
    pair: bool

    @property
    def is_complex(self) -> bool:
        """Whether it holds whole complex numbers."""
        return self.pair or self.info.dtype.startswith("complex")


def quantities(leaves: dict[str, str], tensors: Tensors) -> dict[str, Quantity]:
    """{leaf: what it seems to be} of the tensors of one path, those with a known word."""
    found = {}
    for leaf, name in leaves.items():
        words = [part for word in _WORD.findall(leaf) for part in _parts(word.lower())]
        flags = [word for word in words if word in _REAL | _IMAG | _LOG | _EMPTY or word.isdigit()]
        rest = [word for word in words if word not in flags]
        kind = _OF_WORD.get(rest[0]) if len(rest) == 1 else None
        if kind is None:
            continue
        info = tensors[name]
        halves = ["real"] * bool(_REAL & set(flags)) + ["imag"] * bool(_IMAG & set(flags))
        both = len(halves) == 2
        pair = not info.dtype.startswith("complex") and len(info.shape) > 1 and info.shape[-1] == 2
        pair = pair and (both or (not halves and kind in ("poles", "B", "C", "P", "Q")))
        half = "" if both or not halves else halves[0]
        found[leaf] = Quantity(info, kind, half, bool(_LOG & set(flags)), pair)
    return found


def _parts(word: str) -> list[str]:
    """A word that is written together taken apart: `logdt` is log, dt; `lambdare` is lambda, re."""
    if word in _OF_WORD or word in _REAL | _IMAG | _LOG | _EMPTY:
        return [word]
    for flag in sorted(_REAL | _IMAG | _LOG, key=len, reverse=True):
        if word.startswith(flag) and word.removeprefix(flag) in _OF_WORD:
            return [flag, word.removeprefix(flag)]
        if word.endswith(flag) and (word.removesuffix(flag) in _OF_WORD or word.removesuffix(flag).startswith("log")):
            return [*_parts(word.removesuffix(flag)), flag]
    return [word]


def looks_like_states(tensors: Tensors) -> dict[str, dict[str, str]]:
    """{path: {leaf: full name}} of the tensors that look like state space layers; numbers or names make it likely.

    A path counts with poles beside a step, a read-out or a low-rank factor by name, or with complex numbers of two
    tensors that share an axis.
    """
    found = {}
    for prefix, leaves in groups(tensors).items():
        known = quantities(leaves, tensors)
        kinds = {quantity.kind for quantity in known.values()}
        complex_ones = [name for name in leaves.values() if tensors[name].dtype.startswith("complex")]
        alike = len(complex_ones) > 1 and bool(set.intersection(*(set(tensors[n].shape) for n in complex_ones)))
        if (kinds & _POLES and kinds & _OTHERS) or alike:
            found[prefix] = {leaf: leaves[leaf] for leaf in leaves if leaf in known or leaves[leaf] in complex_ones}
    return found


def pattern_of(paths: Iterable[str]) -> list[str]:
    """The paths as patterns: a number that differs from path to path is a star."""
    parts = [canonical(path).split("/") for path in paths]
    shapes: dict[tuple[str, ...], list[list[str]]] = {}
    for own in parts:
        shapes.setdefault(tuple(re.sub(r"\d+", "*", part) for part in own), []).append(own)
    patterns = []
    for alike in shapes.values():
        columns = zip(*alike)
        patterns.append(".".join(c[0] if len(set(c)) == 1 else re.sub(r"\d+", "*", c[0]) for c in columns))
    return patterns
