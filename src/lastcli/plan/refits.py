"""The refits, which say what the states that stay say: one frozen object each; see `plan.methods`."""

from __future__ import annotations

from dataclasses import dataclass

from lastcli.plan.registries import named, registry

__all__ = ["REFITS", "Refit", "as_refit"]


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


_MATCHING = "distillation, Hinton et al., arXiv 1503.02531; docs/methods.md"

REFITS: dict[str, Refit] = registry(
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


def as_refit(value: str | Refit) -> Refit:
    """The refit that is meant by a name or a `Refit`.

    Raises:
        UsageError: there is no refit of that name.
    """
    return value if isinstance(value, Refit) else named(value, REFITS, "refit")
