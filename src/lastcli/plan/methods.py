"""The methods and refits: one frozen object each, and all that anything needs to know about one.

A method says which states stay, a refit what those that stay say. The registries `METHODS` and `REFITS` are asked
before anything runs: the flags, `last methods`, the compressor, the search and the sweep read their properties here and
know no names. A method of one's own is a line in `METHODS`, or in Python a `Method`, or just a criterion: a function of
a `DiagonalSystem` that gives (sets, N) energies.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from lastcli.errors import UsageError
from lastcli.mappings import suggestion

if TYPE_CHECKING:
    import numpy as np

    from lastcli.engine.system import DiagonalSystem

__all__ = ["BEST", "METHODS", "REFITS", "Method", "Refit", "as_method", "as_refit", "function_at"]

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


@dataclass(frozen=True)
class Refit:
    """What the kept states are made to say.

    Attributes:
        name: as typed after `--refit`.
        help: one line for people.
        source: the paper, or where the refit is described.
        run: "module:function" that does it; see `lastcli.reduction.refits`.
        moments: the second moments that it and an elimination before it work on: "h2" (white noise), "calibrated", or
            None where the refit asks for none.
        needs_calibration: whether it cannot run without calibration inputs.
        for_kept_states: whether it re-solves the read-out of the original's states, so that a method which moves the
            poles cannot come before it.
        moves_poles: whether it gives the reduced layers poles of their own.
        matches_output: whether it ends by fitting all layers together to the original model's outputs.
        start_sequences: for one that matches outputs: its start is made on so many calibration sequences at most,
            spread evenly over all of them; the outputs are matched on all.
        slow: whether one reduction takes long, so that a search tries fewer of them.
        needs_model: whether it runs the model around the layers, so that recorded layer inputs are not enough.
        drives: whether it fits what drives the states, which takes layers that compute B by one matrix (Mamba 1).
    """

    name: str
    help: str
    source: str
    run: str
    moments: str | None = None
    needs_calibration: bool = False
    for_kept_states: bool = False
    moves_poles: bool = False
    matches_output: bool = False
    start_sequences: int | None = None
    slow: bool = False
    needs_model: bool = False
    drives: bool = False


def _registry(entries: Iterable[Any]) -> dict[str, Any]:
    return {entry.name: entry for entry in entries}


_SPARSE = "layer-adaptive magnitude pruning, Lee et al., arXiv 2010.07611"
_BASELINE = "a baseline of LAST, Gwak et al., arXiv 2411.02824, section 5"
_MATCHING = "distillation, Hinton et al., arXiv 1503.02531; docs/methods.md"
_BALANCED = "Antoulas, Approximation of Large-Scale Dynamical Systems, 2005, chapter 7"

METHODS: dict[str, Method] = _registry(
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

REFITS: dict[str, Refit] = _registry(
    (
        Refit("none", "the kept states say what they said before", "plain truncation", "lastcli.reduction.refits:none"),
        Refit(
            "h2",
            "read-out that is H2-optimal under white-noise input; needs no data",
            "docs/methods.md",
            "lastcli.reduction.refits:h2",
            moments="h2",
        ),
        Refit(
            "calibrated",
            "read-out that is best on calibration inputs; needs no labels",
            "docs/methods.md",
            "lastcli.reduction.refits:calibrated",
            moments="calibrated",
            needs_calibration=True,
            for_kept_states=True,
        ),
        Refit(
            "sequential",
            "calibrated layer after layer, on what the reduced layers before it really send",
            "docs/methods.md",
            "lastcli.reduction.refits:sequential",
            moments="calibrated",
            needs_calibration=True,
            for_kept_states=True,
            needs_model=True,
        ),
        Refit(
            "calibrated+B",
            "calibrated, then B fitted in the same way and the read-out once more; Mamba 1 alone",
            "docs/families/mamba.md",
            "lastcli.reduction.refits:calibrated_drive",
            moments="calibrated",
            needs_calibration=True,
            for_kept_states=True,
            needs_model=True,
            drives=True,
            slow=True,
        ),
        Refit(
            "poles",
            "sequential, then poles, B, C and D identified anew from the calibration inputs",
            "variable projection, Golub and Pereyra, 1973; docs/methods.md",
            "lastcli.reduction.refits:poles",
            moments="calibrated",
            needs_calibration=True,
            moves_poles=True,
            slow=True,
        ),
        Refit(
            "match",
            "sequential, then all layers fitted together to the original model's outputs; needs no labels",
            _MATCHING,
            "lastcli.reduction.refits:match",
            moments="calibrated",
            needs_calibration=True,
            needs_model=True,
            matches_output=True,
            start_sequences=1024,
            slow=True,
        ),
        Refit(
            "poles+match",
            "poles, then all layers fitted together to the original model's outputs; needs no labels",
            _MATCHING,
            "lastcli.reduction.refits:poles_match",
            moments="calibrated",
            needs_calibration=True,
            moves_poles=True,
            needs_model=True,
            matches_output=True,
            start_sequences=128,
            slow=True,
        ),
    )
)

Entry = TypeVar("Entry", Method, Refit)


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
    return _named(value, METHODS, "method")


def as_refit(value: str | Refit) -> Refit:
    """The refit that is meant by a name or a `Refit`.

    Raises:
        UsageError: there is no refit of that name.
    """
    return value if isinstance(value, Refit) else _named(value, REFITS, "refit")


def function_at(place: str) -> Callable[..., Any]:
    """The function that "module:function" stands for; the module is imported only now."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _named(value: Any, registry: dict[str, Entry], what: str) -> Entry:
    if not isinstance(value, str):
        raise UsageError(f"A {what} is a name such as {next(iter(registry))!r}, not {value!r}.")
    if value not in registry:
        raise UsageError(f"there is no {what} {value!r}.{suggestion(value, registry)}")
    return registry[value]


def _name_of(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
