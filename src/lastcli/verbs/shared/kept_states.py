"""Why another number of states stays than was asked for."""

from __future__ import annotations

from collections.abc import Sequence

from lastcli.engine.protocol import System
from lastcli.plan import Plan

__all__ = ["kept_note"]


def kept_note(systems: Sequence[System], plan: Plan, after: int, *, pinned: bool) -> str | None:
    """A sentence where a number of states or a ratio could not be met, with the reason; None where it was.

    Args:
        systems: the original layers.
        plan: with `states` or `ratio` set; else there is nothing to say.
        after: stored states that stay.
        pinned: whether some of them stay since no norm can rank them.
    """
    from lastcli.engine.allocation import states_to_keep

    if plan.states is not None:
        asked, flag = plan.states, f"--states {plan.states}"
    elif plan.ratio is not None:
        asked, flag = states_to_keep(sum(s.stored_states for s in systems), plan.ratio), f"--ratio {plan.ratio}"
    else:
        return None
    if after == asked:
        return None
    reasons = _fewer(systems, plan) if after < asked else _more(systems, plan, pinned)
    stays = f"{after} state{' stays' if after == 1 else 's stay'}"
    return f"{stays}, {'fewer' if after < asked else 'more'} than the {asked} of {flag}: {', and '.join(reasons)}."


def _fewer(systems: Sequence[System], plan: Plan) -> list[str]:
    reasons = []
    if plan.layout == "uniform":
        reasons.append("every layer keeps the same number (--layout uniform)")
    if plan.layout == "proportional":
        reasons.append("the layers keep the ratio of their sizes (--layout proportional)")
    channels = sorted({system.sets for system in systems if system.sets > 1})
    if channels:
        cost = " or ".join(map(str, channels))
        reasons.append(f"all channels of a layer keep the same number, so that its states go {cost} at a time")
    if plan.states_multiple > 1:
        reasons.append(f"every index set keeps a multiple of {plan.states_multiple} (--states-multiple)")
    return reasons or ["the next ones would not fit"]


def _more(systems: Sequence[System], plan: Plan, pinned: bool) -> list[str]:
    reasons = []
    if plan.min_states > 0:
        where = "every channel of every layer" if any(system.sets > 1 for system in systems) else "every layer"
        reasons.append(f"{where} keeps at least {plan.min_states} (--min-states)")
    if plan.states_multiple > 1:
        reasons.append(f"every index set keeps a multiple of {plan.states_multiple} (--states-multiple)")
    if pinned:
        reasons.append("states with |λ| ≥ 1 stay")
    if plan.compat is not None:
        reasons.append(f"states that tie with the last kept one stay too (--compat {plan.compat})")
    return reasons or ["a model keeps at least one"]
