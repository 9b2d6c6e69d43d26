"""The largest ratio within a drop: bisection over the compiled masked program, then confirmed on the compact model.

Accuracy need not fall evenly with the ratio, so a coarse grid over all counts comes first, evaluated in one go, and the
bisection runs between the largest count of removed states that passed and its failing neighbour. What is returned was
measured as the compact model it will be, never only as a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from lastcli.engine.protocol import Reduction
from lastcli.errors import GateError
from lastcli.evaluation.significance import compare
from lastcli.evaluation.sweep import Evaluation
from lastcli.plan import Method, Refit
from lastcli.reduction.compressor import Compressor
from lastcli.results import SearchResult, SearchStep
from lastcli.verbs.shared.baseline import baseline_fault
from lastcli.verbs.shared.measuring import data_name, measure, measure_checkpoint, metric_of, within_drop
from lastcli.verbs.shared.rebuilding import as_checkpoint, rebuild
from lastcli.verbs.shared.session import Session

__all__ = ["Found", "Search", "baseline_of"]

_COARSE = 9
# Between a passing and a failing count the search goes on until they differ by less than this share of the states.
_FINE, _FINE_SLOW = 512, 64


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        result: everything that was tried.
        reductions: of the smallest model within the bound, None where there is none.
        asked: the number of states it was asked for; it may keep fewer or more.
    """

    result: SearchResult
    reductions: list[Reduction] | None
    asked: int | None = None


def baseline_of(session: Session) -> Evaluation:
    """The full model on the split, to measure drops against.

    Raises:
        InputError: its outputs are not finite.
        GateError: it does not beat an answer that looks at no input.
    """
    baseline = measure(session, [None], "Baseline")[0]
    fault = baseline_fault(session, baseline)
    if fault is not None:
        raise GateError(f"{fault} No drop can be measured against it; nothing was written.")
    return baseline


class Search:
    """The search for the fewest states whose drop stays within `plan.max_drop`, of one method and refit.

    Args:
        baseline: the full model, `baseline_of`.
        below: only models with fewer states than these are of interest; None for all. Where one state fewer is
            outside the bound already, a slow refit is not tried on.
    """

    def __init__(
        self,
        session: Session,
        compressor: Compressor,
        method: Method,
        refit: Refit,
        baseline: Evaluation,
        below: int | None = None,
    ):
        self.session, self.compressor, self.method, self.refit = session, compressor, method, refit
        self.total, self.below, self.baseline = compressor.states, below, baseline
        self.metric = metric_of(session)
        self.steps: list[SearchStep] = []
        self.reduced: dict[int, list[Reduction]] = {}
        self.within: dict[int, bool] = {}

    def run(self) -> Found:
        """Search and confirm."""
        # fewest first: a passing count makes every larger one uninteresting
        coarse = sorted({max(1, self.total * k // (_COARSE + 1)) for k in range(1, _COARSE + 1)})
        coarse = coarse[::3] if self.refit.slow else coarse
        if self.below is not None:
            coarse = [count for count in coarse if count < self.below] or [max(1, self.below - 1)]
            if self.refit.slow:
                # one state fewer first: what cannot even do that costs this try alone
                self._try([max(1, self.below - 1)])
                if not any(self.within.values()):
                    return self.finish()
        self._try(coarse)
        low, high = self._bracket()
        fine = _FINE_SLOW if self.refit.slow and self.below is not None else _FINE
        while high - low > max(1, self.total // fine):
            middle = (low + high) // 2
            self._try([middle])
            if self.within[middle]:
                high = middle
            else:
                low = middle
        return self.finish()

    def finish(self) -> Found:
        """The smallest of the models tried so far that is within the bound at its own size, too."""
        for count in sorted(count for count, fine in self.within.items() if fine):
            confirmed = self._confirm(count)
            if confirmed is not None:
                return Found(self._result(confirmed), self.reduced[count], count)
        return Found(self._result(None), None)

    def _bracket(self) -> tuple[int, int]:
        """(too few, enough) states: the smallest passing count and its failing neighbour below."""
        passing = [count for count, fine in self.within.items() if fine]
        most = self.total if self.below is None else self.below
        high = min(passing, default=most)
        low = max((count for count, fine in self.within.items() if not fine and count < high), default=0)
        if not passing and self.below is None:
            low = max(self.within, default=0)
            self._try([self.total])
        return low, high

    def _try(self, counts: Sequence[int]) -> None:
        counts = [count for count in counts if count not in self.within]
        if not counts:
            return
        for count in counts:
            self.reduced[count] = self.compressor.reduce(self.method, self.refit, states=count)
        found = measure(self.session, [self.reduced[count] for count in counts], "Searching")
        for count, evaluation in zip(counts, found):
            self.within[count] = self._record(count, evaluation)

    def _record(self, count: int, found: Evaluation, *, compact: bool = False) -> bool:
        drop = float(self.metric.drop(self.baseline.value, found.value))
        within = within_drop(drop, self.baseline, found, self.session.plan)
        kept = sum(reduction.system.stored_states for reduction in self.reduced[count])
        ratio = float(1 - Fraction(kept, self.total))
        p_value = None
        if not found.non_finite:
            p_value = compare(self.metric, self.baseline.statistics, found.statistics).p_value
        self.steps.append(
            SearchStep(
                ratio=ratio, states=kept, value=found.value, drop=drop, within=within, p_value=p_value, compact=compact
            )
        )
        return within

    def _confirm(self, count: int) -> SearchStep | None:
        """The compact model itself on the split; None if it misses the bound."""
        checkpoint = self.session.checkpoint
        compact = as_checkpoint(checkpoint, rebuild(checkpoint, self.reduced[count], self.compressor.layout))
        found = measure_checkpoint(self.session, compact, "Confirming")
        return self.steps[-1] if self._record(count, found, compact=True) else None

    def _result(self, step: SearchStep | None) -> SearchResult:
        plan = self.session.plan
        return SearchResult(
            max_drop=float(plan.max_drop or 0.0),
            metric=self.metric.name,
            n=self.baseline.n,
            baseline=self.baseline.value,
            value=None if step is None else step.value,
            drop=None if step is None else step.drop,
            steps=tuple(self.steps),
            significance=plan.significance,
            data=data_name(self.session),
        )
