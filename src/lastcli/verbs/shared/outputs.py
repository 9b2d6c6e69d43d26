"""The outputs of PRUNED beside those of ORIGINAL with the same states masked, and of ORIGINAL as it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lastcli.engine.engines import engine_of
from lastcli.engine.protocol import Reduction, System
from lastcli.model.checkpoint import Checkpoint
from lastcli.results import Check
from lastcli.verbs.shared.proof import RECOMPUTED
from lastcli.verbs.shared.session import Session

__all__ = ["Compared", "compare_outputs"]

# Rounding of a float32 forward pass through several layers, relative to the largest output.
TOLERANCE = 1e-4
_BATCH = 32


@dataclass(frozen=True)
class Compared:
    """Outputs of PRUNED against those of masked ORIGINAL (`difference`) and of ORIGINAL itself (`lost_…`)."""

    what: str
    largest: float
    difference: float
    lost_most: float
    lost_on_average: float
    finite: bool = True

    @classmethod
    def of(cls, what: str, triples: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Compared:
        """From (masked original, pruned, original) outputs, batch by batch."""
        largest = difference = lost = total = 0.0
        terms, finite = 0, True
        for masked, pruned, original in triples:
            finite = finite and all(bool(np.isfinite(outputs).all()) for outputs in (masked, pruned, original))
            largest = max(largest, float(np.abs(masked).max()))
            difference = max(difference, float(np.abs(masked - pruned).max()))
            gap = np.abs(original.astype(np.float64) - pruned)
            lost, total, terms = max(lost, float(gap.max())), total + float(gap.sum()), terms + gap.size
        return cls(what, largest, difference, lost, total / max(terms, 1), finite)

    def check(self) -> Check:
        """Whether PRUNED answers as ORIGINAL with the same states masked, to rounding."""
        if not self.finite:
            detail = f"{self.what}: outputs that are NaN or infinite; nothing can be compared"
            return Check(name="equal outputs", ok=False, detail=detail)
        ok = bool(self.difference <= TOLERANCE * max(self.largest, 1e-30))
        detail = f"{self.what}: max difference {self.difference:.2e} at outputs up to {self.largest:.3g}"
        return Check(name="equal outputs", ok=ok, detail=detail, how=RECOMPUTED)


def compare_outputs(
    session: Session, before: Checkpoint, after: Checkpoint, reductions: Sequence[Reduction]
) -> Compared:
    """Outputs on the plan's data where it names any, else on random inputs; of each layer where no forward is known."""
    masked = tuple(engine_of(system).embed(system, reduction) for system, reduction in zip(before.systems, reductions))
    if before.forward is None or after.forward is None:
        triples = zip(*(map(_answer, layers) for layers in (masked, after.systems, before.systems)), strict=True)
        return Compared.of("each layer on random inputs", triples)
    return _model_outputs(session, before, after, masked)


def _answer(system: System) -> np.ndarray:
    width = system.form["inputs"] * (system.form["groups"] if system.multi else 1)
    return engine_of(system).output(system, np.random.default_rng(0).standard_normal((2, 64, width)))


def _model_outputs(session: Session, before: Checkpoint, after: Checkpoint, masked: Sequence[System]) -> Compared:
    from lastcli.evaluation.fitting import random_split
    from lastcli.evaluation.passes import model_outputs

    forward, split = before.require_forward(), session.examples.inputs
    if split is not None:
        what = f"{split.n} example{'s' if split.n > 1 else ''} of {Path(split.name).name}"
    else:
        split = random_split(forward)
        what = f"{split.n} random inputs"
    size = session.plan.batch_size or min(split.n, _BATCH)  # the same for all: their batches are compared one by one
    reference = model_outputs(forward, before.params, masked, split, batch_size=size)
    pruned = model_outputs(after.require_forward(), after.params, after.systems, split, batch_size=size)
    original = model_outputs(forward, before.params, before.systems, split, batch_size=size)
    return Compared.of(what, zip(reference, pruned, original))
