"""`score`: energy and score of every state."""

from __future__ import annotations

from lastcli.engine.engines import engine_of
from lastcli.errors import UsageError
from lastcli.plan import REFITS, method_of
from lastcli.results import LayerScore, ScoreResult
from lastcli.verbs.shared.anatomy import full_anatomy
from lastcli.verbs.shared.session import Session
from lastcli.verbs.shared.unstable import unstable_note, unstable_states

__all__ = ["score"]


def score(session: Session, *, anatomy: bool = False) -> ScoreResult:
    """Energy of every state under the plan's method, and its score as it competes over all layers.

    Args:
        anatomy: also keep what the pictures of a report are drawn from.

    Raises:
        UnsupportedModelError: a state has |λ| >= 1 and no finite norm.
        UsageError: the method does not rank single states.
    """
    method = method_of(session.reducing)
    if method.moves_poles:
        raise UsageError(f"--method {method.name} moves the poles and ranks no states; use it with prune or sweep.")
    compressor = session.compressor([(method, REFITS["none"])])
    energies = compressor.energies(method)
    scores = compressor.scores(method)
    layers = tuple(
        LayerScore(
            name=name,
            states=system.states,
            sets=system.sets,
            multi=system.multi,
            energy=energy,
            score=value,
            max_abs_pole=engine_of(system).largest_pole(system),
        )
        for name, system, energy, value in zip(compressor.names, compressor.systems, energies, scores)
    )
    return ScoreResult(
        checkpoint=session.checkpoint.label,
        family=session.checkpoint.family.name,
        method=method.name,
        criterion=method.criterion_name,
        allocation=method.allocation,
        compat=session.plan.compat,
        layers=layers,
        unstable=unstable_states(compressor),
        notes=tuple(note for note in [*compressor.decisions, unstable_note(compressor)] if note),
        anatomy=full_anatomy(session.checkpoint, energies, method.name) if anatomy else None,
    )
