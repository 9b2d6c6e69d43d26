"""Balanced truncation and balanced singular perturbation of diagonal layers, by the square-root method.

A layer is a real system of two states for each stored pole (the real and the imaginary part). Its Gramians are known
in closed form, a square root of each gives the balancing projection, and the reduced real system is diagonalised again
(`lastcli.engine.rediagonalise`), because a diagonal layer is all that a checkpoint can hold.

- ``truncation`` keeps the leading balanced states: ‖G - G_r‖_∞ ≤ 2 Σ of the Hankel singular values left out. With two
  scan directions that bound holds for the stacked read-outs of two forward scans. At a frequency ω the layer applies
  one of them to u and the other to the conjugate of what it would be at -ω: with one input that is the same up to a
  phase, and the sum of the two is at most √2 times the stack, with several inputs at most twice.
- ``perturbation`` lets the removed states settle at once: the same bound, and the response to constant inputs stays as
  it was. That moves a direct part into D. Where the checkpoint cannot hold that D (several inputs, and D diagonal or
  none), poles and B stay those of the perturbation, C and a diagonal D are fitted, and there is no bound. The response
  to constant inputs is then a constraint of the fit if enough states stay to meet it without doubling the H2 error of
  the compromise in which that response weighs as much as that to white noise; otherwise it is that compromise, and is
  not kept exactly (`certificates.relative_dc_error` says how far it is off).

Sources: Antoulas, Approximation of Large-Scale Dynamical Systems, chapters 7 and 9; Forgione et al., arXiv 2403.14833,
for trained state space models. States with |λ| ≥ 1 have no Gramian: they are kept as they are, beside the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from lastcli.engine.allocation import select
from lastcli.engine.certificates import relative_h2_error
from lastcli.engine.constant_response import refit_keeping_constants
from lastcli.engine.criteria import unstable
from lastcli.engine.norms import frequency_response, gramians, h2_norm, symmetric_root
from lastcli.engine.precision import in_float64
from lastcli.engine.readout import direct_part
from lastcli.engine.rediagonalise import Modal, Projection, diagonalise, pack
from lastcli.engine.reductions import refit_moved
from lastcli.engine.system import DiagonalSystem, Reduction, feedthrough_of
from lastcli.errors import UnsupportedModelError, UsageError

__all__ = ["MODES", "Balanced", "balance", "check_balanceable", "reduce_balanced"]

MODES = ("truncation", "perturbation")

# A near-defective reduced system has large residues that cancel each other: stored in float32, a condition κ of the
# eigenvectors costs about κ·6·10⁻⁸ of the output.
CONDITION_LIMIT = 1e5

# The response to constant inputs is kept exactly up to so many times the H2 error of the compromise. Where the states
# are hardly more than the equations, keeping it would take huge read-outs that ruin all other responses.
_PRICE = 2.0

# How many orders are tried before a size is given up.
_ATTEMPTS = 6

# Balanced states below this part of the largest Hankel singular value are rounding.
_RANK = 1e-10


@dataclass(frozen=True)
class Balanced:
    """One layer, balanced once; `reduce` then costs an eigenvalue problem for every size.

    Attributes:
        system: the layer.
        name: of the layer, for messages.
        mode: one of `MODES`.
        singular_values: (sets, n) Hankel singular values of the stable part of every index set, descending.
        projections: the balanced real system of every index set.
    """

    system: DiagonalSystem
    name: str
    mode: str
    singular_values: np.ndarray
    projections: tuple[Projection, ...]

    @property
    def pinned(self) -> np.ndarray:
        """(sets, N) bool: states with |λ| ≥ 1, kept as they are."""
        return unstable([self.system])[0]

    def scores(self) -> np.ndarray:
        """(sets, N) score of the j-th slot, the same in every set: 2Σσ without it, relative to 2Σσ of all.

        A slot holds one complex pole, two states of the real system. Slots of unstable states come first, infinite.
        """
        first = int(self.pinned.sum(axis=1).max(initial=0))
        sigma = self.singular_values.sum(axis=0)
        tail = np.cumsum(sigma[::-1])[::-1][::2]
        tail = tail / tail[0] if len(tail) and tail[0] > 0 else np.zeros_like(tail)
        score = np.concatenate([np.full(first, np.inf), tail, np.zeros(self.system.states)])[: self.system.states]
        return np.tile(score, (self.system.sets, 1))

    def reduce(self, states: int) -> Reduction:
        """The layer in `states` stored states.

        A stored state holds a conjugate pair, or one real pole (with half its coefficient where the read-out doubles).
        So the order of the reduced real system lies between `states` and twice that, as its real poles allow; slots
        that stay empty are inert.

        Raises:
            UnsupportedModelError: no order that fits can be diagonalised well enough; says how badly.
        """
        system = self.system
        if states >= system.states:
            every = np.tile(np.arange(system.states), (system.sets, 1))
            return Reduction(kept=every, system=system, changed="none")
        pinned = self.pinned
        modals, bounds = [], []
        for index, projection in enumerate(self.projections):
            free = states - int(pinned[index].sum())
            if free < 0:
                raise UsageError(f"Layer {self.name} has more unstable states than the {states} that may stay.")
            modal, order = self._diagonal(index, projection, free)
            modals.append(modal)
            bounds.append(2 * _stacked(system) * float(self.singular_values[index, order:].sum()))
        kept = np.tile(np.arange(states), (system.sets, 1))
        packed = pack(system, pinned, modals, states)
        reduction = Reduction(kept=kept, system=packed, changed="all", bound=max(bounds))
        if self.mode == "perturbation":
            reduction = self._with_direct_part(reduction, modals)
        return reduction

    def _diagonal(self, index: int, projection: Projection, slots: int) -> tuple[Modal, int]:
        """The largest order whose diagonal form is sound and fits into `slots`, in that form.

        Where poles nearly meet, the condition is what rounding makes of it, on either side of any limit: such an order
        is passed over whatever the condition says, so that every processor finds the same one.
        """
        order = min(2 * slots, projection.rank)
        failed: list[str] = []
        while len(failed) < _ATTEMPTS and order >= 0:
            modal = diagonalise(projection, order, self.mode)
            if modal.slots > slots:
                order -= modal.slots - slots
            elif modal.radius < 1 and modal.resolved and modal.condition <= CONDITION_LIMIT:
                return modal, order
            else:
                condition = f"{modal.condition:.3g}" if modal.resolved else "not determined, for poles nearly meet,"
                failed.append(f"{condition} at order {order}, largest |λ| {modal.radius:.6g}")
                order -= 1
        channel = f", channel {index}" if self.system.sets > 1 else ""
        raise UnsupportedModelError(
            f"Layer {self.name}{channel}: the balanced system cannot be written with {slots} diagonal states, the "
            f"condition of its eigenvectors is {failed[0]}, and {CONDITION_LIMIT:.0e} is the limit; keep another "
            "number of states, or use obs."
        )

    def _with_direct_part(self, reduction: Reduction, modals: Sequence[Modal]) -> Reduction:
        system, reduced = self.system, reduction.system
        if direct_part(system) != "dense":
            return self._with_fitted_readout(reduction)
        D = np.array(feedthrough_of(system), np.float64)
        shared = system.groups // system.sets
        for index, modal in enumerate(modals):
            blocks = modal.D.reshape(shared, system.directions, system.outputs, shared, system.inputs).sum(axis=1)
            for place in range(shared):
                D[index + place * system.sets] += blocks[place, :, place]
        return dataclasses.replace(reduction, system=reduced.replace(D=D))

    def _with_fitted_readout(self, reduction: Reduction) -> Reduction:
        """The constant response kept by C (and a diagonal D) where that is affordable, else a compromise."""
        system = self.system
        compromise = refit_moved(system, reduction, constant=_constant_weight(_stable_part(system)))
        compromise = dataclasses.replace(compromise, bound=None)
        exact = refit_keeping_constants(system, reduction)
        if exact is None:
            return compromise
        dear, cheap = (relative_h2_error(system, each.system) for each in (exact, compromise))
        return exact if dear <= _PRICE * cheap else compromise


def check_balanceable(system: DiagonalSystem, name: str = "layer") -> None:
    """Refuse a layer whose form leaves balanced states no place.

    Raises:
        UnsupportedModelError: groups share their kept states, but not their poles, or states have a form that leaves
            their poles no freedom (LinOSS), or the format fixes them or the read-out.
    """
    if system.shared_readout:
        raise UnsupportedModelError(
            f"Layer {name}: its states are oscillators with one read-out for both poles, balanced states are not; "
            "use a method that keeps the poles."
        )
    if system.fixed_poles or system.real_readout:
        raise UnsupportedModelError(
            f"Layer {name}: its format cannot hold the poles and the complex read-out of balanced states; use a method "
            "that keeps the poles."
        )
    shared = system.poles.reshape(-1, system.sets, system.poles.shape[1])
    if (shared != shared[:1]).any():
        raise UnsupportedModelError(
            f"Layer {name}: its channels share which states they keep, but have poles of their own, and balanced "
            "states cannot be shared; use another method."
        )


@in_float64
def balance(system: DiagonalSystem, name: str = "layer", mode: str = "truncation") -> Balanced:
    """Balance every index set of a layer.

    Args:
        system: the layer, NumPy float64.
        name: of the layer, for messages.
        mode: one of `MODES`.

    Raises:
        UsageError: no such mode.
        UnsupportedModelError: groups share their kept states, but not their poles, or states have a form that leaves
            their poles or their read-out no freedom.
    """
    if mode not in MODES:
        raise UsageError(f"There is no balanced reduction {mode!r}; known ones: {', '.join(MODES)}.")
    check_balanceable(system, name)
    stable = _stable_part(system)
    if mode == "perturbation" and not system.delay:
        # The removed states settle in the strictly causal part: C x[k] = C λ x[k-1] + C B u[k].
        seen = stable.replace(C=stable.C * stable.poles[:, None, None])
    else:
        seen = stable
    controllability, observability = (
        gram.reshape(-1, system.sets, *gram.shape[1:]).sum(axis=0) for gram in gramians(seen)
    )
    reach, see = symmetric_root(controllability), symmetric_root(observability)
    U, sigma, Vt = np.linalg.svd(see.swapaxes(1, 2) @ reach)
    projections = []
    for index in range(system.sets):
        rank = int((sigma[index] > _RANK * max(sigma[index].max(initial=0), np.finfo(float).tiny)).sum())
        root = np.sqrt(sigma[index, :rank])
        into, onto = reach[index] @ Vt[index, :rank].T / root, (see[index] @ U[index][:, :rank] / root).T
        projections.append(Projection.of(stable, index, into, onto, causal=seen is not stable))
    return Balanced(system, name, mode, sigma, tuple(projections))


@in_float64
def reduce_balanced(
    balanced: Sequence[Balanced],
    *,
    ratio: Decimal | float | str | None = None,
    states: int | None = None,
    min_states: int = 1,
    layout: str = "ragged",
    multiple: int = 1,
) -> list[Reduction]:
    """Balanced reductions of all layers to a share (or number) of stored states.

    The layers compete slot by slot: the score of a slot is the bound 2Σσ that its layer reaches without it, relative
    to that of the empty layer.

    Args:
        balanced: `balance` of every layer.
        ratio: share of all stored states to remove.
        states: stored states to keep, instead of a ratio.
        min_states: stored states that every layer (and channel) keeps at least.
        layout: "ragged", "padded", "uniform" or "proportional", as in `select`.
        multiple: as in `select`.

    Raises:
        UnsupportedModelError: a layer cannot be diagonalised at its size.
    """
    scores = [layer.scores() for layer in balanced]
    pinned = [np.isinf(score) for score in scores]
    kept = select(
        scores,
        scores,
        ratio=ratio,
        states=states,
        min_states=min_states,
        layout=layout,
        multiple=multiple,
        pinned=pinned,
    )
    return [layer.reduce(indices.shape[1]) for layer, indices in zip(balanced, kept)]


def _stacked(system: DiagonalSystem) -> float:
    """How much more the sum of two scan directions can be than the stack of their read-outs."""
    if system.directions == 1:
        return 1.0
    return float(np.sqrt(2)) if system.inputs == 1 else 2.0


def _constant_weight(system: DiagonalSystem) -> np.ndarray:
    """(G,) weight that makes the response to constant inputs count as much as that to white noise."""
    gain = (np.abs(frequency_response(system, np.zeros(1))[:, 0]) ** 2).sum(axis=(1, 2))
    return np.divide(h2_norm(system) ** 2, gain, out=np.zeros_like(gain), where=gain > 0)


def _stable_part(system: DiagonalSystem) -> DiagonalSystem:
    """The layer without its unstable states, at full size."""
    wild = np.repeat(unstable([system])[0], system.modes, axis=1)[np.arange(system.groups) % system.sets]
    return system.replace(
        poles=np.where(wild, 0, system.poles),
        B=np.where(wild[..., None], 0, system.B),
        C=np.where(wild[:, None, None], 0, system.C),
    )
