"""Does a method with a refit suit a checkpoint? Asked before anything is computed; a minute of work ends in no refusal.

What a layer's format can hold is a property of its system (`fixed_poles`, `shared_readout`, `modes`, `feedthrough`), so
the question needs the layers and no data. `misfit` is what a comparison leaves out and says; `check` refuses it, and
what is merely missing (calibration inputs, a forward pass, a finite norm) as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcli.engine.engines import engine_of
from lastcli.engine.system import diagonal
from lastcli.errors import LastError, UnsupportedModelError, UsageError
from lastcli.model.checkpoint import Checkpoint
from lastcli.plan import BEST, Method, Plan, Refit

if TYPE_CHECKING:
    from lastcli.reduction.recorded import LayerInputs

__all__ = ["check", "misfit", "require_exact", "require_norms"]

_NEEDS_INPUTS = (
    "needs inputs to calibrate on; give an .npz file with --calibration, or what lastcli.capture recorded with "
    "--layer-inputs."
)


def misfit(checkpoint: Checkpoint, method: Method, refit: Refit) -> LastError | None:
    """Why this method and this refit make no sense together, or not on this model; None where they do."""
    if method is BEST:
        return UsageError("--method best belongs to `last prune --max-drop`; name one of `last methods` here.")
    selective = [
        layer.name for layer, system in zip(checkpoint.layers, checkpoint.systems) if not system.time_invariant
    ]
    if selective and (method.moves_poles or refit.moves_poles or refit.moments == "h2"):
        what = f"--method {method.name}" if method.moves_poles else f"--refit {refit.name}"
        return UnsupportedModelError(
            f"{selective[0]} is selective: its step, B and C depend on the input, so it has no fixed poles and no "
            f"response to white noise, which {what} needs; use obs with --calibration, or --refit calibrated."
        )
    if refit.drives:
        other = [layer.name for layer, system in zip(checkpoint.layers, checkpoint.systems) if not system.drivable]
        if other:
            return UnsupportedModelError(
                f"--refit {refit.name} fits the matrix that makes B of its input, and {other[0]} has none that could "
                "be fitted so; Mamba 1 has. Use --refit calibrated."
            )
    if method.moves_poles and refit.for_kept_states:
        return UsageError(f"--refit {refit.name} keeps the original poles, {method.name} moves them; use h2 or poles.")
    if method.moves_poles or refit.moves_poles:
        held = _held(checkpoint, method, refit)
        if held is not None:
            return held
    if method.moves_poles:
        from lastcli.engine.balanced import check_balanceable

        try:
            for layer, system in zip(checkpoint.layers, checkpoint.systems):
                check_balanceable(diagonal(system), layer.name)
        except UnsupportedModelError as error:
            return error
    return None


def _held(checkpoint: Checkpoint, method: Method, refit: Refit) -> UnsupportedModelError | None:
    """Whether some layer's poles must stay where they are, as those that are bound to each other do."""
    what = f"--method {method.name}" if method.moves_poles else f"--refit {refit.name}"
    for layer, system in zip(checkpoint.layers, map(diagonal, checkpoint.systems)):
        if system.fixed_poles:
            why = checkpoint.family.refuses_moved_poles(layer, checkpoint.config)
            return UnsupportedModelError(f"{what} gives the states new poles. {why}")
        if method.moves_poles and system.real_readout:
            return UnsupportedModelError(
                f"Layer {layer.name}: {what} gives the states a complex read-out, and the checkpoint holds a real one; "
                "use a method that keeps the states."
            )
    return None


def check(
    checkpoint: Checkpoint,
    method: Method,
    refit: Refit,
    plan: Plan,
    *,
    calibrated: bool,
    recorded: LayerInputs | None = None,
) -> None:
    """Refuse what cannot run.

    Args:
        calibrated: whether there are calibration inputs, of the model or of its layers.
        recorded: the inputs of the layers, where those are what there is.

    Raises:
        UsageError: the refit does not go with the method, there are no calibration inputs, or not of the kind needed.
        UnsupportedModelError: the model cannot hold the result, a state has no finite norm, or the model around the
            layers is not known and its inputs are needed.
    """
    if not calibrated:
        if refit.needs_calibration:
            raise UsageError(f"--refit {refit.name} {_NEEDS_INPUTS}")
        if method.needs_calibration:
            raise UsageError(f"{method.name} {_NEEDS_INPUTS}")
        if plan.match_output and not refit.matches_output:
            raise UsageError("This needs inputs to calibrate on; give an .npz file with --calibration.")
    found = misfit(checkpoint, method, refit)
    if found is not None:
        raise found
    if plan.steps > 1 and method.criterion == "magnitude":
        raise UsageError(
            f"--steps measures what each stage made of the layers, and {method.name} ranks by the tensors of the file; "
            "leave --steps out, or take --method obs."
        )
    if recorded is not None:
        _check_recorded(method, refit, plan, recorded)
    elif method.reads_calibration(refit, available=calibrated) or plan.match_output:
        checkpoint.require_forward()
    if plan.refuse_unstable or _takes_norms(method, refit, calibrated):
        require_norms(checkpoint, plan)


def require_exact(checkpoint: Checkpoint, plan: Plan) -> None:
    """Refuse layers in which leaving states out changes those that stay, unless that is accepted.

    Raises:
        UnsupportedModelError: there is one, and `allow_inexact` is not given.
    """
    if plan.allow_inexact:
        return
    for layer in checkpoint.layers:
        why = checkpoint.family.inexact(layer, checkpoint.config)
        if why is not None:
            raise UnsupportedModelError(
                f"{why} Give --allow-inexact to reduce it all the same, and measure the result."
            )


def _check_recorded(method: Method, refit: Refit, plan: Plan, recorded: LayerInputs) -> None:
    """Refuse what runs the whole model, which the inputs of its layers are not enough for."""
    whole = (
        (refit.needs_model, f"--refit {refit.name}", "take calibrated or poles"),
        (method.needs_model, f"--method {method.name}", "take obs"),
        (plan.match_output, "--match-output", "leave it out"),
        (plan.steps > 1, "--steps", "leave it out"),
    )
    for wanted, what, instead in whole:
        if wanted:
            raise UsageError(
                f"{what} runs the whole model, and --layer-inputs has the inputs of its layers alone; {instead}, or "
                "give the model's own inputs with --calibration."
            )
    if refit.moves_poles and not recorded.sampled:
        raise UsageError(
            f"--refit {refit.name} looks at sequences, and {recorded.name} holds moments alone; record again with "
            "sample=64."
        )


def _takes_norms(method: Method, refit: Refit, calibrated: bool) -> bool:
    if method.criterion in ("hinf", "h2", "hankel") or refit.moments == "h2":
        return True
    return method.eliminates and not method.reads_calibration(refit, available=calibrated)


def require_norms(checkpoint: Checkpoint, plan: Plan) -> None:
    """Refuse values that are not finite, and with `refuse_unstable` states without a finite norm.

    Raises:
        InputError: a layer holds values that are not finite.
        UnsupportedModelError: a pole at or outside the unit circle, and such states are refused.
    """
    for layer, system in zip(checkpoint.layers, checkpoint.systems):
        engine_of(system).check(system, layer.name, allow=not plan.refuse_unstable)
