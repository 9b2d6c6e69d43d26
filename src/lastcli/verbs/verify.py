"""`verify`: proof that PRUNED is ORIGINAL with states removed (and refitted), from the two files alone.

The reference is built from ORIGINAL's tensors: the kept states embedded at full size, with whatever the record of
PRUNED says was re-solved taken from PRUNED. If both models answer the same inputs alike, nothing else was done.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lastcli.engine.system import DiagonalSystem, Reduction
from lastcli.errors import InputError
from lastcli.model.checkpoint import Checkpoint
from lastcli.results import Check, LayerCertificate, VerifyResult
from lastcli.verbs.shared.certificates import certificates
from lastcli.verbs.shared.matching import Matched, match_layers
from lastcli.verbs.shared.session import Session

__all__ = ["verify"]

Named = str | Path | Checkpoint

# Rounding of a float32 forward pass through several layers, relative to the largest output.
TOLERANCE = 1e-4
_BATCH = 32


def verify(session: Session, original: Named, pruned: Named) -> VerifyResult:
    """Compare two checkpoints; every check is reported, none stops the others.

    Inputs are the plan's data where given, else random.

    Raises:
        InputError: a file cannot be read.
        UnsupportedModelError: a family is not known.
    """
    before, after = session.open(original), session.open(pruned, own_description=True)
    checks = [_record(before, after), _untouched(before, after)]
    finite = _finite(after)
    checks.append(finite)
    if not finite.ok or len(before.layers) != len(after.layers):
        checks.append(_layer_counts(before, after))
        return _result(before.label, after.label, checks)
    checks.append(_stable(before, after))
    matched = match_layers(before, after)
    checks.append(_shapes(before, after, matched))
    checks.append(_kept(before, matched))
    if all(match.found for match in matched):
        reductions = [match.reduction for match in matched]
        compared = _outputs(session, before, after, reductions)
        checks.append(compared.check())
        found = certificates([layer.name for layer in before.layers], before.systems, reductions)
        return _result(before.label, after.label, checks, compared, found)
    return _result(before.label, after.label, checks)


def _result(
    original: str,
    pruned: str,
    checks: Sequence[Check],
    compared: _Compared | None = None,
    layers: tuple[LayerCertificate, ...] = (),
) -> VerifyResult:
    return VerifyResult(
        original=original,
        pruned=pruned,
        ok=all(check.ok for check in checks),
        max_abs_difference=None if compared is None else compared.difference,
        max_output_difference=None if compared is None else compared.lost_most,
        mean_output_difference=None if compared is None else compared.lost_on_average,
        checks=tuple(checks),
        layers=layers,
    )


def _record(before: Checkpoint, after: Checkpoint) -> Check:
    recorded = after.provenance.get("sha256")
    if recorded is None:
        return Check(
            name="record", ok=True, detail="PRUNED carries no record; its kept states are found by their poles"
        )
    same = recorded == before.sha256
    detail = "PRUNED was made from ORIGINAL (sha256)" if same else "PRUNED was made from another file (sha256 differs)"
    return Check(name="record", ok=same, detail=detail)


def _untouched(before: Checkpoint, after: Checkpoint) -> Check:
    """Every tensor outside the layers has the same bytes, dtype and shape."""
    skip = before.state_tensors | after.state_tensors
    first = {name: info for name, info in before.reader.tensors.items() if name not in skip}
    second = {name: info for name, info in after.reader.tensors.items() if name not in skip}
    # a flat container and a nested one spell the same path with different separators
    names = {_plain(name): name for name in second}
    for name, info in first.items():
        other = names.pop(_plain(name), None)
        if other is None:
            return Check(name="untouched", ok=False, detail=f"{name} is missing in PRUNED")
        there = second[other]
        if (info.shape, info.dtype) != (there.shape, there.dtype):
            return Check(
                name="untouched", ok=False, detail=f"{name}: {info.dtype}{info.shape} became {there.dtype}{there.shape}"
            )
        if before.reader.read(name).tobytes() != after.reader.read(other).tobytes():
            return Check(name="untouched", ok=False, detail=f"{name}: the bytes differ")
    if names:
        return Check(name="untouched", ok=False, detail=f"{next(iter(names.values()))} is not in ORIGINAL")
    return Check(name="untouched", ok=True, detail=f"{len(first)} tensors, byte for byte")


def _plain(name: str) -> str:
    return name.replace("/", ".").removeprefix("params.")


def _finite(after: Checkpoint) -> Check:
    try:
        systems = after.systems
    except InputError as error:
        return Check(name="finite", ok=False, detail=str(error))
    return Check(name="finite", ok=True, detail=f"{len(systems)} layers")


def _layer_counts(before: Checkpoint, after: Checkpoint) -> Check:
    same = len(before.layers) == len(after.layers)
    return Check(name="layers", ok=same, detail=f"{len(before.layers)} in ORIGINAL, {len(after.layers)} in PRUNED")


def _stable(before: Checkpoint, after: Checkpoint) -> Check:
    """No pole of PRUNED is at or outside the unit circle, unless ORIGINAL had such poles already."""
    largest = [float(np.abs(system.poles).max()) for system in after.systems]
    worst = int(np.argmax(largest))
    limit = max(1.0, max(float(np.abs(system.poles).max()) for system in before.systems) * (1 + 1e-6))
    ok = largest[worst] < limit or limit > 1.0 >= largest[worst]
    return Check(name="stable", ok=ok, detail=f"largest |λ| {largest[worst]:.6f} in {after.layers[worst].name}")


def _shapes(before: Checkpoint, after: Checkpoint, matched: Sequence[Matched]) -> Check:
    for layer, old, new in zip(before.layers, before.systems, after.systems):
        if new.states > old.states and after.provenance.get("layout") != "padded":
            return Check(
                name="shapes", ok=False, detail=f"{layer.name} has {new.states} states, more than {old.states}"
            )
    kept = sum(match.states * old.sets for match, old in zip(matched, before.systems))
    total = sum(system.stored_states for system in before.systems)
    recorded = after.provenance.get("states_after", kept)
    detail = f"{total} states before, {kept} after" + ("" if recorded == kept else f", but the record says {recorded}")
    return Check(name="shapes", ok=recorded == kept, detail=detail)


def _kept(before: Checkpoint, matched: Sequence[Matched]) -> Check:
    for layer, match in zip(before.layers, matched):
        if not match.found:
            return Check(name="kept states", ok=False, detail=f"{layer.name}: {match.detail}")
    kinds = {match.reduction.changed for match in matched}
    said = {
        "none": "poles, B and C are ORIGINAL's",
        "readout": "poles and B are ORIGINAL's, the read-out is new",
        "all": "poles, B and C are new",
    }
    return Check(name="kept states", ok=True, detail="; ".join(said[kind] for kind in sorted(kinds)))


@dataclass(frozen=True)
class _Compared:
    """Outputs of PRUNED against those of masked ORIGINAL (difference) and of ORIGINAL itself (lost)."""

    what: str
    largest: float
    difference: float
    lost_most: float
    lost_on_average: float

    @classmethod
    def of(cls, what: str, triples: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> _Compared:
        """From (masked original, pruned, original) outputs, batch by batch."""
        largest = difference = lost = total = 0.0
        terms = 0
        for masked, pruned, original in triples:
            largest = max(largest, float(np.abs(masked).max()))
            difference = max(difference, float(np.abs(masked - pruned).max()))
            gap = np.abs(original.astype(np.float64) - pruned)
            lost, total, terms = max(lost, float(gap.max())), total + float(gap.sum()), terms + gap.size
        return cls(what, largest, difference, lost, total / max(terms, 1))

    def check(self) -> Check:
        ok = bool(self.difference <= TOLERANCE * max(self.largest, 1e-30))
        detail = f"{self.what}: max difference {self.difference:.2e} at outputs up to {self.largest:.3g}"
        return Check(name="equal outputs", ok=ok, detail=detail)


def _outputs(session: Session, before: Checkpoint, after: Checkpoint, reductions: Sequence[Reduction]) -> _Compared:
    from lastcli.engine.embedding import embed

    masked = tuple(embed(system, reduction) for system, reduction in zip(before.systems, reductions))
    if before.forward is None or after.forward is None:
        triples = zip(*(map(_answer, layers) for layers in (masked, after.systems, before.systems)), strict=True)
        return _Compared.of("each layer on random inputs", triples)
    return _model_outputs(session, before, after, masked)


def _answer(system: DiagonalSystem) -> np.ndarray:
    from lastcli.reduction.calibration import output_of

    width = system.groups if system.multi else system.inputs
    return output_of(system, np.random.default_rng(0).standard_normal((2, 64, width)))


def _model_outputs(
    session: Session, before: Checkpoint, after: Checkpoint, masked: Sequence[DiagonalSystem]
) -> _Compared:
    from lastcli.evaluation.fitting import random_split
    from lastcli.evaluation.passes import model_outputs

    forward, split = before.require_forward(), session.inputs
    if split is not None:
        what = f"{split.n} example{'s' if split.n > 1 else ''} of {Path(split.name).name}"
    else:
        split = random_split(forward)
        what = f"{split.n} random inputs"
    size = session.plan.batch_size or min(split.n, _BATCH)  # the same for all: their batches are compared one by one
    reference = model_outputs(forward, before.params, masked, split, batch_size=size)
    pruned = model_outputs(after.require_forward(), after.params, after.systems, split, batch_size=size)
    original = model_outputs(forward, before.params, before.systems, split, batch_size=size)
    return _Compared.of(what, zip(reference, pruned, original))
