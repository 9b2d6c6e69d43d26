"""What every kind of layer offers to the rest of the house: a `System`, and the `Engine` that computes with it.

There are two kinds, and neither knows the other: diagonal time-invariant layers (`engine.system`, `engine.diagonal`)
and selective ones, whose step, B and C depend on the input (`engine.selective`). Whoever computes with layers of a
model asks `engines.engine_of(system)` and knows no kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Engine", "Reduction", "Signals", "System", "Variables"]

Array = Any
# Batch by batch: what arrives at a layer (n, L, F), what it is to answer (n, L, p) float64, and the weights (n, L) of
# the time steps. Called once for every pass over the data.
Signals = Callable[[], Iterable[tuple["np.ndarray", "np.ndarray", "np.ndarray"]]]


class System(Protocol):
    """One state space layer: NumPy arrays, or traced JAX arrays inside a forward pass; a JAX pytree.

    Attributes:
        kind: which engine computes with it (`engines.ENGINES`).
        time_invariant: whether it is a linear time-invariant system: it then has poles, norms and certificates.
    """

    kind: ClassVar[str]
    time_invariant: ClassVar[bool]

    @property
    def states(self) -> int:
        """N, the stored states of one index set."""

    @property
    def sets(self) -> int:
        """Independent index sets; every set keeps the same number of states, each its own."""

    @property
    def stored_states(self) -> int:
        """States this layer counts with in the budget: sets · N."""

    @property
    def multi(self) -> bool:
        """Whether results are reported for each set."""

    @property
    def bidirectional(self) -> bool:
        """Whether there is a backward scan."""

    @property
    def width(self) -> int:
        """Numbers that one step of one sequence takes inside the layer, as far as memory is concerned."""

    @property
    def drivable(self) -> bool:
        """Whether what drives the states is linear in one matrix of the file, so that it can be fitted to signals."""

    @property
    def form(self) -> Mapping[str, int]:
        """What a reduction never changes: {"inputs", "outputs", "directions", ...: a number}."""


class Variables(Protocol):
    """The free values of a layer for gradient descent, all zero at the system they were made of; a JAX pytree."""

    @property
    def start(self) -> Mapping[str, Array]:
        """{name: array of zeros}."""

    def system(self, values: Any) -> Any:
        """The system at these values, in their precision; traceable."""

    def padded(self) -> Any:
        """The same with states behind its own that do nothing, so that layers of like sizes share a program."""


@dataclass(frozen=True)
class Reduction:
    """What becomes of one layer.

    Attributes:
        kept: (sets, K) int, indices of the kept stored states of each set, ascending. For a method that moves the
            poles, the slots whose names the new states take (0..K-1).
        system: the reduced `System` (NumPy, float64), K states a set, in the order of `kept`.
        changed: "none" (a plain gather), "readout" (what reads the states is new: C, and D or the projection behind
            them where the format allows) or "all" (what drives the states is new too).
        bound: what the H-infinity norm of the error cannot exceed, where the method knows it from the start: a balanced
            system does, by the Hankel singular values left out, as long as nobody refits it. None elsewhere.
    """

    kept: Array
    system: Any
    changed: str = "none"
    bound: float | None = None


class Engine(Protocol):
    """The mathematics of one kind of layer, as a module; systems and moments are those of its kind.

    Functions that make sense for time-invariant layers alone are not part of it: their callers look at
    `System.time_invariant` first.
    """

    CRITERIA: Mapping[str, Any]

    def energies(self, system: Any, criterion: Any, **given: Any) -> np.ndarray:
        """Energy of every state, (sets, N); see `criteria.Criterion` for what may be given."""

    def check(self, system: Any, name: str, allow: bool) -> None:
        """Refuse values that are not finite and, unless `allow`, states without a finite norm."""

    def unstable(self, system: Any, margin: float) -> np.ndarray:
        """Which states no norm can rank, (sets, N) bool."""

    def truncate(self, system: Any, kept: np.ndarray) -> Reduction:
        """The kept states (sets, K) as they are."""

    def embed(self, original: Any, reduction: Reduction, states: int | None = None) -> Any:
        """The reduced system in the shapes of the original (or of `states` states), the other states inert."""

    def as_precision(self, system: Any, real: Any) -> Any:
        """The arrays in the precision of the real dtype `real`."""

    def recurrent(self, system: Any) -> Any:
        """The layer as it is run step by step, with nothing left to prepare at a step; it reads no later steps."""

    def empty_moments(self, system: Any) -> Any:
        """Moments before any example was seen."""

    def accumulate(self, moments: Any, system: Any, u: Array, weights: Array, target: Array | None = None) -> Any:
        """Moments with one more batch taken in, in float64."""

    def eliminate(self, system: Any, moments: Any) -> Any:
        """Backward elimination of the states; an `Elimination`."""

    def exchange(self, system: Any, kept: np.ndarray, moments: Any, pinned: np.ndarray | None) -> np.ndarray:
        """Kept states after the swaps that lower the refitted error."""

    def refit(self, system: Any, kept: np.ndarray, moments: Any, signals: Signals) -> Reduction:
        """What the kept states must say on the inputs of `moments`; `signals` gives those inputs again."""

    def refit_on_signals(
        self,
        system: Any,
        kept: np.ndarray,
        moments: Callable[[], Any],
        signals: Signals,
        reselect: bool,
        pinned: np.ndarray | None,
    ) -> Reduction:
        """The same for targets of one's own, `moments()` being those of `signals`; `reselect` allows other states."""

    def output(self, system: Any, u: np.ndarray) -> np.ndarray:
        """The layer's answer in float64, (n, L, p)."""

    def variables(self, system: Any) -> Variables:
        """Its free values for gradient descent (`start`, `system(values)`)."""

    def moved(self, before: Reduction, system: Any) -> str:
        """`Reduction.changed` once gradient descent has made `system` of a reduction."""

    def stored(self, original: Any, reduction: Reduction, read: Any) -> Any:
        """A reduced system with the values that were read back (`read`) from where it is stored."""

    def distance(self, first: Any, second: Any) -> float:
        """How far two systems of one form are apart, relative to the first."""

    def same_dynamics(self, first: Any, second: Any, relative: float) -> bool:
        """Whether what drives the states is the same, to `relative`; 0: to the last bit."""

    def with_dynamics(self, system: Any, other: Any) -> Any:
        """`system`'s read-out on `other`'s states."""

    def other_readout(self, system: Any) -> Any:
        """The system with every number that a refit of the read-out may change changed."""

    def locate(self, old: Any, new: Any) -> np.ndarray | str:
        """The states (sets, K) of `old` that `new` consists of, or why there are none such."""

    def inert(self, system: Any) -> np.ndarray:
        """Which states do nothing, (sets, N) bool."""

    def largest_pole(self, system: Any) -> float:
        """The largest |λ|; of a selective layer at the step that its bias alone gives."""
