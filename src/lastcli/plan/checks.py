"""Which values a plan may have, and which options go together."""

from __future__ import annotations

import dataclasses

from lastcli.errors import UsageError
from lastcli.plan.drawn import draws, parse_drawn
from lastcli.plan.methods import BEST
from lastcli.plan.plan import Plan
from lastcli.plan.quantities import divides, parse_duration, parse_share

__all__ = ["check_plan"]


def check_plan(plan: Plan) -> None:
    """Refuse values out of range, and options that contradict each other.

    Raises:
        UsageError: names the options as they are typed.
    """
    for item in dataclasses.fields(plan):
        value, least = getattr(plan, item.name), item.metadata["least"]
        if least is not None and value is not None and value < least:
            raise UsageError(f"--{item.name.replace('_', '-')} must be at least {least}, not {value}.")
    _check_place(plan)
    if plan.allow_unstable and plan.refuse_unstable:
        raise UsageError("--allow-unstable and --refuse-unstable exclude each other.")
    if plan.calibration is not None and divides(plan.calibration):
        parse_share(plan.calibration)
    if plan.calibration is not None and draws(plan.calibration):
        parse_drawn(plan.calibration)
    if plan.budget is not None:
        parse_duration(plan.budget)
    _check_best(plan)
    if plan.calibration is not None and plan.layer_inputs is not None:
        raise UsageError("--calibration and --layer-inputs exclude each other.")
    if plan.outputs is not None and plan.forward is None:
        raise UsageError("--outputs says what your own forward pass returns; give it with --forward.")
    if plan.threshold is not None and not 0 < plan.threshold < 1:
        raise UsageError(f"--threshold is a probability between 0 and 1, such as 0.3, not {plan.threshold}.")
    if plan.significance is not None and not 0 < plan.significance < 1:
        raise UsageError(f"--significance must lie between 0 and 1, such as 0.05, not {plan.significance}.")


def _check_place(plan: Plan) -> None:
    """The options that say where a run takes place."""
    if plan.devices is not None and plan.devices != "all" and not (plan.devices.isdecimal() and int(plan.devices) >= 1):
        raise UsageError(f"--devices must be a number of devices or all, not {plan.devices!r}.")
    given = (plan.coordinator, plan.num_processes, plan.process_id)
    if any(item is not None for item in given) and None in given:
        raise UsageError("--coordinator, --num-processes and --process-id go together; give all three or none.")
    if plan.coordinator is None or plan.num_processes is None or plan.process_id is None:
        return
    host, _, port = plan.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UsageError(f"--coordinator must be HOST:PORT, not {plan.coordinator!r}.")
    if not 0 <= plan.process_id < plan.num_processes:
        raise UsageError(
            f"--process-id must lie between 0 and {plan.num_processes - 1} where --num-processes is "
            f"{plan.num_processes}, not {plan.process_id}."
        )


def _check_best(plan: Plan) -> None:
    """`--method best` decides method, refit and steps itself, and needs a bound to decide by."""
    if plan.methods is not None and BEST in plan.methods:
        raise UsageError(
            "--method best searches a single model; it goes with `last prune --max-drop`, not with a sweep."
        )
    if plan.method is not BEST:
        if plan.budget is not None:
            raise UsageError("--budget bounds the time of --method best; name that method, or leave --budget out.")
        return
    if plan.max_drop is None:
        raise UsageError(
            "--method best keeps what removes most within a drop: give --max-drop 0.01 and --data, not a ratio."
        )
    chosen = [
        f"--{key.replace('_', '-')}"
        for key, unset in (("refit", None), ("steps", 1), ("match_output", False), ("compat", None))
        if getattr(plan, key) != unset
    ]
    if chosen:
        raise UsageError(f"--method best chooses refits and stages itself; leave {chosen[0]} out.")
