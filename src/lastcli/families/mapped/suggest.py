"""A first version of a map, from names and shapes that look like a state space layer.

Each template is a family's layer in its own names and axes: N states, H channels (or inputs and outputs). A path's
tensors are fitted to the templates one after the other; the first in which every part finds a tensor and every shape
agrees on N and H is taken, and what does not have the family's own name or axes is said in the map.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lastcli.families.base import Tensors
from lastcli.families.mapped.vocabulary import Quantity, looks_like_states, pattern_of, quantities

__all__ = ["Suggestion", "suggest"]

Axes = list[int | None]


@dataclass(frozen=True)
class _Wanted:
    """A part of a template: its name, kind, form and axes.

    Attributes:
        form: "complex", "pair" (complex numbers on a last axis, native ones not taken), "real", "imag", "log" (of minus
            the real part, or of a step) or "plain".
        axes: letters N and H or 1, in the family's order, for each form that the family takes.
    """

    name: str
    kind: str
    form: str
    axes: tuple[str, ...]
    needed: bool = True


def _template(text: str) -> tuple[_Wanted, ...]:
    """`name:kind:form:AXES|AXES[?]`, with blanks between the parts."""
    parts = []
    for word in text.split():
        name, kind, form, axes = word.split(":")
        parts.append(_Wanted(name, kind, form, tuple(axes.removesuffix("?").split("|")), not axes.endswith("?")))
    return tuple(parts)


# family → (its layer, what to look at before believing it). The order counts: what has more parts comes first.
_TEMPLATES: dict[str, tuple[tuple[_Wanted, ...], str]] = {
    "annotated_s4": (
        _template(
            "Lambda_re:poles:real:NH Lambda_im:poles:imag:NH P:P:complex:NH B:B:complex:NH C:C:complex:NH "
            "log_step:step:log:1H D:D:plain:1H?"
        ),
        "all conjugates stored, bilinear, C for kernel_length steps (the l_max of training): give kernel_length",
    ),
    "lru": (
        _template(
            "nu_log:nu:log:N theta_log:theta:log:N gamma_log:gamma:log:N B:B:complex:NH C:C:complex:HN D:D:plain:HH|H?"
        ),
        "the state is read after the update unless delay is 1",
    ),
    "s5": (
        _template(
            "Lambda_re:poles:real:N Lambda_im:poles:imag:N B:B:pair:NH C:C:pair:HN log_step:step:log:N1 D:D:plain:H"
        ),
        "set conj_sym, discretization and clip_eigs as the code has them",
    ),
    "complex_s4d": (
        _template("A:poles:complex:HN|N C:C:complex:HN log_dt:step:log:H B:B:complex:HN|N? D:D:plain:H?"),
        "the output is Re(C x); set conj_sym where the code takes twice that",
    ),
    "s4d": (
        _template("log_A_real:poles:log:HN A_imag:poles:imag:HN C:C:complex:HN log_dt:step:log:H D:D:plain:H?"),
        "one of each conjugate pair stored, the output 2·Re(C x), zero-order hold",
    ),
    "annotated_s4d": (
        _template(
            "A_re:poles:real:NH A_im:poles:imag:NH B_re:B:real:NH B_im:B:imag:NH C:C:complex:NH log_step:step:log:1H "
            "D:D:plain:1H?"
        ),
        "all conjugates stored, zero-order hold, real parts clipped at -1e-4; use_b where the kernel multiplies by B",
    ),
}


@dataclass(frozen=True)
class Suggestion:
    """A description to begin with.

    Attributes:
        description: family and map; None where no template fits.
        check: what it assumes.
        tensors: the tensors that look like a state space layer, by path.
    """

    description: dict[str, Any] | None
    check: str
    tensors: Mapping[str, Mapping[str, str]]


def suggest(tensors: Tensors) -> Suggestion:
    """The first template that fits the first path that looks like a layer, for all paths with the same tensors."""
    paths = looks_like_states(tensors)
    for leaves in paths.values():
        alike = [path for path, own in paths.items() if own.keys() == leaves.keys()]
        found = quantities(leaves, tensors)
        for family, (template, check) in _TEMPLATES.items():
            fitted = _fit(template, found)
            if fitted is None:
                continue
            names, axes = fitted
            said: dict[str, Any] = {"family": family, "layers": _joined(pattern_of(alike))}
            said |= {key: value for key, value in (("names", names), ("axes", axes)) if value}
            return Suggestion(said, check, paths)
    return Suggestion(None, "", paths)


def _joined(patterns: list[str]) -> str | list[str]:
    return patterns[0] if len(patterns) == 1 else patterns


def _fit(template: tuple[_Wanted, ...], found: Mapping[str, Quantity]) -> tuple[dict[str, str], dict[str, Axes]] | None:
    """(names, axes) of a template over a path's tensors; None where a part has no tensor or shapes do not agree."""
    sources: dict[str, tuple[str, tuple[int, ...], bool]] = {}
    for part in template:
        source = _source(part, found)
        if source is not None:
            sources[part.name] = source
        elif part.needed:
            return None
    used = [part for part in template if part.name in sources]
    lengths = sorted({length for _, shape, _ in sources.values() for length in shape})
    best: tuple[int, dict[str, Axes]] | None = None
    for N, H in itertools.product(lengths, repeat=2):
        axes = {part.name: _axes(part, sources[part.name], {"N": N, "H": H, "1": 1}) for part in used}
        if any(own is None for own in axes.values()):
            continue
        moved = {name: own for name, own in axes.items() if own}
        if best is None or len(moved) < best[0]:
            best = len(moved), {name: own for name, own in moved.items() if own}
    if best is None:
        return None
    return {name: text for name, (text, *_) in sources.items() if text != name}, best[1]


def _source(part: _Wanted, found: Mapping[str, Quantity]) -> tuple[str, tuple[int, ...], bool] | None:
    """(what the map says of a part, the shape that gives, whether its last axis is the pair)."""
    own = {leaf: q for leaf, q in found.items() if q.kind == part.kind}
    whole = next(((leaf, q) for leaf, q in own.items() if not q.half and not q.log), None)
    halves = {q.half: (leaf, q) for leaf, q in own.items() if q.half}
    if part.form in ("complex", "pair"):
        if whole is not None and whole[1].is_complex:
            leaf, q = whole
            shape = tuple(q.info.shape)
            if part.form == "pair" and not q.pair:
                return f"pair({leaf})", (*shape, 2), True
            return leaf, shape, q.pair
        if len(halves) == 2 and not any(q.log for _, q in halves.values()):
            both = f"complex({halves['real'][0]}, {halves['imag'][0]})"
            shape = tuple(halves["real"][1].info.shape)
            return (f"pair({both})", (*shape, 2), True) if part.form == "pair" else (both, shape, False)
        return None
    if part.form == "plain" or part.kind in ("step", "nu", "theta", "gamma"):
        one = next(iter(own.items()), None)
        if one is None or one[1].is_complex:
            return None
        leaf, q = one
        plain = part.form == "plain" or q.log
        return (leaf if plain else f"log({leaf})"), tuple(q.info.shape), False
    return _half(part, whole, halves)


def _half(part: _Wanted, whole: Any, halves: Mapping[str, Any]) -> tuple[str, tuple[int, ...], bool] | None:
    """The real or imaginary part, or the logarithm of minus the real part, from halves or from whole numbers."""
    half = "imag" if part.form == "imag" else "real"
    if half in halves:
        leaf, q = halves[half]
        text = {("log", False): f"log(-{leaf})", ("real", True): f"-exp({leaf})"}.get((part.form, q.log), leaf)
        return text, tuple(q.info.shape), False
    if whole is None or not whole[1].info.dtype.startswith("complex"):
        return None
    text = f"{half}({whole[0]})"
    return (f"log(-{text})" if part.form == "log" else text), tuple(whole[1].info.shape), False


def _axes(part: _Wanted, source: tuple[str, tuple[int, ...], bool], lengths: Mapping[str, int]) -> Axes | None:
    """How the source's axes make the part's: [] where they do already, None where they cannot."""
    _, shape, pair = source
    for letters in part.axes:
        wanted = (*(lengths[letter] for letter in letters), *((2,) if pair else ()))
        if shape == wanted:
            return []
    for letters in part.axes:
        wanted = (*(lengths[letter] for letter in letters), *((2,) if pair else ()))
        body = len(shape) - pair
        for order in itertools.permutations([*range(body), *[None] * letters.count("1")], len(letters)):
            axes: Axes = [*order, *([body] if pair else [])]
            there = tuple(1 if axis is None else shape[axis] for axis in axes)
            left = [length for axis, length in enumerate(shape) if axis not in axes]
            if there == wanted and all(length == 1 for length in left):
                return axes
    return None
