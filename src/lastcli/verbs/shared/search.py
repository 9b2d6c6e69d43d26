"""The largest ratio within a drop: bisection over the compiled masked program, then confirmed on the compact model.

Accuracy need not fall evenly with the ratio, so a coarse grid over all counts comes first, evaluated in one go, and the
bisection runs between the largest count of removed states that passed and its failing neighbour. What is returned was
measured as the compact model it will be, never only as a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
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

__all__ = ["search"]

_COARSE = 9


def search(
    session: Session, compressor: Compressor, method: Method, refit: Refit
) -> tuple[SearchResult, list[Reduction] | None]:
    """Search the fewest states whose drop stays within `plan.max_drop`.

    Returns:
        What was searched, and the reductions of the model found; None where none meets the bound.

    Raises:
        InputError: outputs of the full model are not finite.
        GateError: the full model does not beat an answer that looks at no input.
    """
    return _Search(session, compressor, method, refit).run()


class _Search:
    def __init__(self, session: Session, compressor: Compressor, method: Method, refit: Refit):
        self.session, self.compressor, self.method, self.refit = session, compressor, method, refit
        self.total = compressor.states
        self.baseline = measure(session, [None], "Baseline")[0]
        fault = baseline_fault(session, self.baseline)
        if fault is not None:
            raise GateError(f"{fault} No drop can be measured against it; nothing was written.")
        self.metric = metric_of(session)
        self.steps: list[SearchStep] = []
        self.reduced: dict[int, list[Reduction]] = {}
        self.within: dict[int, bool] = {}

    def run(self) -> tuple[SearchResult, list[Reduction] | None]:
        # fewest first: a passing count makes every larger one uninteresting
        coarse = sorted({max(1, self.total * k // (_COARSE + 1)) for k in range(1, _COARSE + 1)})
        self._try(coarse[::3] if self.refit.slow else coarse)
        low, high = self._bracket()
        while high - low > max(1, self.total // 512):
            middle = (low + high) // 2
            self._try([middle])
            if self.within[middle]:
                high = middle
            else:
                low = middle
        for count in sorted(count for count, fine in self.within.items() if fine):
            confirmed = self._confirm(count)
            if confirmed is not None:
                return self._result(confirmed), self.reduced[count]
        return self._result(None), None

    def _bracket(self) -> tuple[int, int]:
        """(too few, enough) states: the smallest passing count and its failing neighbour below."""
        passing = [count for count, fine in self.within.items() if fine]
        high = min(passing, default=self.total)
        low = max((count for count, fine in self.within.items() if not fine and count < high), default=0)
        if not passing:
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
