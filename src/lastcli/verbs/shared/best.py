"""`--method best`: methods, refits and stages from the cheapest to the dearest, and the smallest model within a drop.

Each is asked only for what the ones before it did not reach: fewer states than the best so far. A slow one is asked for
one state fewer first, so that it costs a single try where it cannot win, and nothing is tried any more once no state
can be spared.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from lastcli.errors import GateError, LastError
from lastcli.evaluation.sweep import Evaluation
from lastcli.plan import METHODS, REFITS, Method, Plan, Refit
from lastcli.plan.quantities import parse_duration
from lastcli.reduction.compressor import Compressor
from lastcli.reduction.feasible import misfit
from lastcli.results import Attempt, SearchResult, SearchStep
from lastcli.verbs.shared.budget import Budget, BudgetSpentError
from lastcli.verbs.shared.search import Found, Search, baseline_of
from lastcli.verbs.shared.session import Session

__all__ = ["Best", "find_best"]

# (method, refit, stages), from the cheapest to the dearest. What needs calibration inputs is left out without any, and
# what does not suit the model always.
_LADDER = (
    ("last", "none", 1),
    ("aire", "none", 1),
    ("contribution", "none", 1),
    ("balanced", "none", 1),
    ("obs", "h2", 1),
    ("obs", "calibrated", 1),
    ("obs", "sequential", 1),
    ("obs", "match", 1),
    ("obs", "poles", 1),
    ("obs", "match", 3),
    ("obs", "poles+match", 1),
)


@dataclass(frozen=True)
class Best:
    """The best that was found, and all that was tried.

    Attributes:
        plan: what repeats it: method, refit, number of states and stages.
        compressor: that made it.
        found: its search.
        attempts: everything that was tried, in order.
    """

    plan: Plan
    compressor: Compressor
    found: Found
    attempts: tuple[Attempt, ...]

    @property
    def result(self) -> SearchResult:
        """What is reported."""
        return dataclasses.replace(self.found.result, attempts=self.attempts)


def find_best(session: Session) -> Best:
    """Try everything that suits the model, until the budget is spent or nothing can be better.

    Raises:
        GateError: no model stays within the drop, or the budget was spent before one did.
        InputError: outputs of the full model are not finite.
        LastError: of the first of them, where none can be done.
    """
    return _Trying(session).run()


class _Trying:
    def __init__(self, session: Session):
        self.session, self.plan = session, session.plan
        self.budget = Budget(None if self.plan.budget is None else parse_duration(self.plan.budget))
        self.best: _Candidate | None = None
        self.attempts: list[Attempt] = []
        self.failures: list[LastError] = []

    def run(self) -> Best:
        """All attempts."""
        baseline = baseline_of(self.session)
        with self.budget.watching(self.session):
            for method, refit, steps in self._suitable():
                if self.best is not None and self.best.states <= self.best.fewest:
                    self._note(method, refit, steps, "not tried: no state can be spared any more")
                elif self.budget.spent:
                    self._note(method, refit, steps, "not tried: the budget is spent")
                else:
                    self._attempt(method, refit, steps, baseline)
        return self._chosen(baseline)

    def _suitable(self) -> Iterator[tuple[Method, Refit, int]]:
        calibrated = self.session.examples.has_calibration
        modelled = self.plan.layer_inputs is None
        if calibrated:
            _ = self.session.examples.calibration  # a file that cannot be read ends the search before it begins
        else:
            self.session.note(
                "No calibration inputs, so that only what needs none is tried; --calibration FILE or "
                "split:0.5 adds the rest."
            )
        for name, refit_name, steps in _LADDER:
            method, refit = METHODS[name], REFITS[refit_name]
            needs = method.needs_calibration or refit.needs_calibration
            if (needs and not calibrated) or (refit.needs_model and not modelled):
                continue
            if misfit(self.session.checkpoint, method, refit) is None:
                yield method, refit, steps

    def _attempt(self, method: Method, refit: Refit, steps: int, baseline: Evaluation) -> None:
        begin = time.perf_counter()
        below = None if self.best is None else self.best.states
        stopped = ""
        try:
            compressor = self.session.compressor([(method, refit)], steps=steps)
            search = Search(self.session, compressor, method, refit, baseline, below)
            try:
                found = search.run()
            except BudgetSpentError:
                self.budget.close()
                found, stopped = search.finish(), "stopped, the budget is spent: "
        except LastError as error:
            # what one of them cannot do is no reason to lose what the others found
            self.failures.append(error)
            self._note(method, refit, steps, f"cannot be done: {error}", time.perf_counter() - begin)
            return
        seconds = time.perf_counter() - begin
        if found.reductions is None:
            fewer = "" if below is None else f" below {below} states"
            self._note(method, refit, steps, f"{stopped}nothing{fewer} within the bound", seconds)
            return
        end = found.result.steps[-1]
        self._note(method, refit, steps, f"{stopped}within the bound", seconds, end)
        if self.best is None or end.states < self.best.states:
            plan = self.plan.replace(
                method=method, refit=refit, steps=steps, states=found.asked, max_drop=None, budget=None
            )
            self.best = _Candidate(plan, compressor, found, end.states)

    def _note(
        self,
        method: Method,
        refit: Refit,
        steps: int,
        outcome: str,
        seconds: float = 0.0,
        end: SearchStep | None = None,
    ) -> None:
        self.attempts.append(
            Attempt(
                method=method.name,
                refit=refit.name,
                steps=steps,
                outcome=outcome,
                seconds=seconds,
                ratio=None if end is None else end.ratio,
                states=None if end is None else end.states,
                drop=None if end is None else end.drop,
            )
        )

    def _chosen(self, baseline: Evaluation) -> Best:
        if self.best is None and self.failures and len(self.failures) == len(self.attempts):
            raise self.failures[0]
        if self.best is None:
            ended = ", ".join(f"{one.method} + {one.refit}" for one in self.attempts if one.seconds > 0)
            why = f" within the budget of {self.plan.budget}" if self.budget.spent else ""
            raise GateError(
                f"No model that was tried{why} ({ended or 'none'}) stays within a drop of {self.plan.max_drop:g} "
                f"(baseline {baseline.value:.4g}); nothing was written."
            )
        if self.budget.spent:
            self.session.note(f"The budget of {self.plan.budget} is spent; what was best until then is kept.")
        return Best(self.best.plan, self.best.compressor, self.best.found, tuple(self.attempts))


@dataclass(frozen=True)
class _Candidate:
    """The best so far; `states` are those it keeps."""

    plan: Plan
    compressor: Compressor
    found: Found
    states: int

    @cached_property
    def fewest(self) -> int:
        """What no pruning of this model goes below: the floors of its layers."""
        return sum(keep.size for keep in self.compressor.kept(METHODS["random"], states=1))
