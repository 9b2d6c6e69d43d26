"""The methods, which say what states stay: one frozen object each, and all that anything needs to know about one.

`METHODS` is asked before anything runs: the flags, `last methods`, the compressor, the search and the sweep read the
properties here and know no names. What the states that stay say is the refits' (`plan.refits`). A method of one's own
is a line in `METHODS`, or in Python a `Method`, or just a criterion: a function of a `DiagonalSystem` that gives
(sets, N) energies.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lastcli.plan.refits import REFITS, Refit
from lastcli.plan.registries import function_at, named, registry

if TYPE_CHECKING:
    import numpy as np

    from lastcli.engine.system import DiagonalSystem

__all__ = ["BEST", "METHODS", "Method", "as_method"]

Criterion = Callable[["DiagonalSystem"], "np.ndarray"]


@dataclass(frozen=True)
class Method:
    """How the states that stay are chosen.

    Attributes:
        name: as typed after `--method`.
        help: one line for people.
        source: the paper, with its arXiv number, or where the method is described.
        criterion: what a state is worth: a name in `lastcli.engine.criteria.CRITERIA`, a function of a
            `DiagonalSystem` with (sets, N) energies, or "module:function" where one is, "obs" (backward elimination) or
            "hankel" (balanced states).
        allocation: how the layers compete: a name in `lastcli.engine.allocation.ALLOCATIONS`, or "sensitivity"
            (energies weighted by how much the model's outputs move with the layer, then compared as they are), or
            "exchange" (compared as they are, then states exchanged between layers by the error of the model's outputs).
        needs_calibration: whether it cannot run without calibration inputs.
        uses_calibration: whether it measures on calibration inputs where there are any.
        moves_poles: whether the reduced layers have poles of their own, so that no single state is kept or ranked.
        settles: for "hankel": whether the removed states settle at once (singular perturbation) instead of being cut.
        default_refit: the refit of a run that names none, without calibration inputs.
        calibrated_refit: the same where there are some.
    """

    name: str
    help: str
    source: str
    criterion: str | Criterion
    allocation: str = "adaptive"
    needs_calibration: bool = False
    uses_calibration: bool = False
    moves_poles: bool = False
    settles: bool = False
    default_refit: str = "none"
    calibrated_refit: str = "none"

    @property
    def eliminates(self) -> bool:
        """Whether states go one by one, the read-out of the others re-solved each time."""
        return self.criterion == "obs"

    @property
    def needs_model(self) -> bool:
        """Whether layers are compared by the outputs of the whole model on calibration inputs."""
        return self.allocation in ("sensitivity", "exchange")

    @property
    def criterion_name(self) -> str:
        """The criterion in words, for results."""
        return self.criterion if isinstance(self.criterion, str) else _name_of(self.criterion)

    @property
    def rule(self) -> str | Criterion:
        """The criterion as the engine takes it: a name, or the function that "module:function" stands for."""
        if isinstance(self.criterion, str) and ":" in self.criterion:
            return function_at(self.criterion)
        return self.criterion

    def refit(self, *, calibrated: bool) -> Refit:
        """The refit of a run that names none."""
        return REFITS[self.calibrated_refit if calibrated else self.default_refit]

    def reads_calibration(self, refit: Refit, *, available: bool) -> bool:
        """Whether a run with this refit looks at calibration inputs; `available` says whether there are any."""
        if self.needs_calibration or refit.needs_calibration:
            return True
        return self.uses_calibration and refit.moments is None and available


_SPARSE = "layer-adaptive magnitude pruning, Lee et al., arXiv 2010.07611"
_BASELINE = "a baseline of LAST, Gwak et al., arXiv 2411.02824, section 5"
_BALANCED = "Antoulas, Approximation of Large-Scale Dynamical Systems, 2005, chapter 7"

METHODS: dict[str, Method] = registry(
    (
        Method(
            "last",
            "H∞ energy of each state, normalised inside its layer (LAST, arXiv 2411.02824)",
            "Gwak et al., arXiv 2411.02824",
            criterion="hinf",
        ),
        Method(
            "aire",
            "H2 energy (impulse response), normalised inside its layer (AIRE-Prune, arXiv 2602.00534)",
            "AIRE-Prune, arXiv 2602.00534",
            criterion="h2",
        ),
        Method(
            "obs",
            "backward elimination by true cost, the read-out re-solved at every step",
            "optimal brain surgeon, Hassibi and Stork, 1992, over states; docs/methods.md",
            criterion="obs",
            allocation="global",
            uses_calibration=True,
            default_refit="h2",
            calibrated_refit="calibrated",
        ),
        Method(
            "obs-sensitivity",
            "as obs, layers weighted by how much the model's outputs move with them",
            "docs/methods.md",
            criterion="obs",
            allocation="sensitivity",
            needs_calibration=True,
            uses_calibration=True,
            default_refit="h2",
            calibrated_refit="calibrated",
        ),
        Method(
            "obs-exchange",
            "as obs, states exchanged between layers while the model's outputs come closer to the original's",
            "docs/methods.md",
            criterion="obs",
            allocation="exchange",
            needs_calibration=True,
            uses_calibration=True,
            default_refit="h2",
            calibrated_refit="calibrated",
        ),
        Method(
            "global-hinf",
            "H∞ energy, compared over all layers as it is",
            _BASELINE,
            criterion="hinf",
            allocation="global",
        ),
        Method(
            "uniform-hinf",
            "H∞ energy, the same share of every layer",
            _BASELINE,
            criterion="hinf",
            allocation="uniform",
        ),
        Method(
            "global-magnitude",
            "sum of squares of a state's parameters, compared over all layers",
            _BASELINE,
            criterion="magnitude",
            allocation="global",
        ),
        Method(
            "uniform-magnitude",
            "sum of squares of a state's parameters, the same share of every layer",
            _BASELINE,
            criterion="magnitude",
            allocation="uniform",
        ),
        Method(
            "lamp",
            "sum of squares of a state's parameters, normalised inside its layer",
            _SPARSE,
            criterion="magnitude",
        ),
        Method(
            "contribution",
            "energy of what each state alone adds to the outputs on calibration inputs, normalised inside its layer",
            "the score of GHOST for selective models; docs/methods.md",
            criterion="contribution",
            needs_calibration=True,
            calibrated_refit="none",
        ),
        Method("random", "seeded uniform draw", _BASELINE, criterion="random", allocation="global"),
        Method(
            "balanced",
            "balanced truncation: new poles, orders by Hankel singular values",
            _BALANCED,
            criterion="hankel",
            moves_poles=True,
        ),
        Method(
            "balanced-dc",
            "balanced singular perturbation: as balanced, keeps the DC gain where D can hold what settles",
            _BALANCED + "; Forgione et al., arXiv 2403.14833",
            criterion="hankel",
            moves_poles=True,
            settles=True,
        ),
    )
)

# No way to choose states: `prune` tries the others, from the cheapest to the dearest.
BEST = Method(
    "best",
    "prune only: all of these with their refits, cheapest first; keeps what removes most within --max-drop",
    "docs/methods.md",
    criterion="best",
)


def as_method(value: str | Method | Criterion) -> Method:
    """The method that is meant by a name, a `Method`, or a criterion (then normalised inside each layer, as LAST).

    Raises:
        UsageError: there is no method of that name, or the value is none of these.
    """
    if isinstance(value, Method):
        return value
    if value == BEST.name:
        return BEST
    if callable(value):
        text = (inspect.getdoc(value) or "criterion given in Python").splitlines()[0]
        return Method(_name_of(value), text, "given in Python", criterion=value)
    return named(value, METHODS, "method")


def _name_of(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
