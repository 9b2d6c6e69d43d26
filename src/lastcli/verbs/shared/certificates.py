"""Certificates of every layer as it is stored: how far a reduced layer can be, and is, from the original.

What is certified is what the file will hold: the new values rounded to the checkpoint's own dtypes, not the float64
reduction they come from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lastcli.engine.engines import engine_of, first_states
from lastcli.engine.protocol import Reduction, System
from lastcli.engine.system import diagonal
from lastcli.errors import UnsupportedModelError
from lastcli.model.checkpoint import Checkpoint
from lastcli.parallel import layers
from lastcli.plan import Method
from lastcli.results import LayerCertificate
from lastcli.verbs.shared.rebuilding import Rebuilt, as_checkpoint

__all__ = [
    "HOPELESS",
    "as_stored",
    "certificates",
    "constant_notes",
    "error_notes",
    "refuse_hopeless",
    "storage_notes",
]

# A relative H2 error of 1 is what leaving the layer out would cost.
_USELESS = 1.0
# Above this, `prune` writes nothing that no data has shown to work.
HOPELESS = 10.0
# Responses at the frequencies that are looked at together, with what they are made of.
_CERTIFYING_BYTES = 128 << 20
# Rounding of a response to constant inputs in float32.
_CONSTANT = 1e-4
# A change of 1 - |λ| by this share is worth a word.
_SPOILT = 0.1


def as_stored(checkpoint: Checkpoint, rebuilt: Rebuilt, reductions: Sequence[Reduction]) -> list[Reduction]:
    """The reductions with the values that are read back from the rebuilt tensors."""
    stored = as_checkpoint(checkpoint, rebuilt)
    found = []
    for old, read, reduction in zip(checkpoint.systems, stored.systems, reductions):
        read = first_states(read, reduction.system.states)
        system = engine_of(old).stored(old, reduction, read)
        found.append(Reduction(reduction.kept, system, reduction.changed, reduction.bound))
    return found


def certificates(
    names: Sequence[str],
    systems: Sequence[System],
    reductions: Sequence[Reduction],
    data_errors: Sequence[float | None] = (),
) -> tuple[LayerCertificate, ...]:
    """Bound, H∞ error, relative H2 error and error at frequency zero of each layer; on data where that was measured.

    Of a layer that has no norms only the states, and the error on data.
    """
    from lastcli.engine.certificates import certify

    measured = data_errors or [None] * len(names)

    def certified(layer: int) -> LayerCertificate:
        system, reduction = systems[layer], reductions[layer]
        own = {
            "name": names[layer],
            "states_before": system.states,
            "states_after": reduction.system.states,
            "data_error": measured[layer],
        }
        if not system.time_invariant:
            return LayerCertificate(**own)
        certificate = certify(diagonal(system), reduction)
        return LayerCertificate(
            hinf_error_bound=certificate.hinf_error_bound,
            hinf_error=certificate.hinf_error,
            hinf_exact=certificate.hinf_exact,
            h2_error=certificate.h2_error,
            dc_error=certificate.dc_error,
            **own,
        )

    return tuple(layers.each(certified, range(len(names)), _CERTIFYING_BYTES))


def error_notes(found: Sequence[LayerCertificate], *, calibrated: bool) -> list[str]:
    """Sentences about errors that nobody should overlook.

    Args:
        calibrated: whether the read-outs were fitted to calibration inputs, on which they may do better than on noise.
    """
    bad = [layer for layer in found if _finite(layer.h2_error) > _USELESS]
    unbounded = [layer.name for layer in found if layer.hinf_error is not None and np.isinf(layer.hinf_error)]
    notes = []
    if bad:
        worst = max(bad, key=lambda layer: _finite(layer.h2_error))
        notes.append(
            f"Warning: {_count(len(bad), 'layer')} with an H2 error above 100%, worse than leaving the layer out "
            f"({worst.name}: {_percent(worst.h2_error)})."
        )
    if unbounded:
        notes.append(f"The error is not bounded in {', '.join(unbounded)}: a state with |λ| >= 1 was changed.")
    if calibrated and any(layer.h2_error is not None for layer in found):
        notes.append(
            "Errors and bounds are over all inputs; the read-outs were fitted to the calibration inputs, on which they "
            "can be far smaller."
        )
    return notes


def constant_notes(found: Sequence[LayerCertificate], method: Method) -> list[str]:
    """A sentence where a method that is to keep the response to constant inputs could not."""
    missed = [layer for layer in found if layer.dc_error is not None and layer.dc_error > _CONSTANT]
    if not method.settles or not missed:
        return []
    worst = max(missed, key=lambda layer: layer.dc_error or 0.0)
    return [
        f"{method.name} does not keep the response to constant inputs in {_count(len(missed), 'layer')}: the format "
        "has no place for the direct part that it moves into D (off by up to "
        f"{_percent(worst.dc_error)}, {worst.name})."
    ]


def refuse_hopeless(found: Sequence[LayerCertificate]) -> None:
    """Refuse a result that no data has shown to work and that is far from the original over all inputs.

    Raises:
        UnsupportedModelError: a layer's relative H2 error is above `HOPELESS`.
    """
    worst = max(found, key=lambda layer: _finite(layer.h2_error), default=None)
    if worst is not None and _finite(worst.h2_error) > HOPELESS:
        raise UnsupportedModelError(
            f"{worst.name}: the reduced layer's H2 error is {_percent(worst.h2_error)} of the layer, over the limit of "
            f"{_percent(HOPELESS)}, so nothing was written; take another method or refit (obs re-solves the read-out), "
            "show with --data that the model still works, or write it all the same with --force."
        )


def storage_notes(checkpoint: Checkpoint, reductions: Sequence[Reduction], stored: Sequence[Reduction]) -> list[str]:
    """Sentences about poles that rounding to the checkpoint's dtype moves towards or over the unit circle."""
    notes = []
    for layer, exact, kept in zip(checkpoint.layers, reductions, stored):
        if not exact.system.time_invariant:
            continue
        before, after = 1 - np.abs(exact.system.poles), 1 - np.abs(kept.system.poles)
        if exact.changed == "none" or before.shape != after.shape or not before.size:
            continue
        moved = np.abs(after - before) / np.maximum(np.abs(before), 1e-300)
        moved = np.where(before > 0, moved, 0.0)
        where = np.unravel_index(int(moved.argmax()), moved.shape)
        if moved[where] > _SPOILT or (after[where] <= 0 < before[where]):
            dtypes = {checkpoint.reader.tensors[name].dtype for name in layer.tensors.values()
                      if name in checkpoint.reader.tensors}  # fmt: skip
            notes.append(
                f"Storage as {', '.join(sorted(dtypes))} moves a pole of {layer.name}: 1 - |λ| is {before[where]:.3g} "
                f"and becomes {after[where]:.3g}."
            )
    return notes


def _finite(error: float | None) -> float:
    """The error, 0 where there is none or it is not bounded: states with |λ| >= 1 have no norm to be measured by."""
    return error if error is not None and np.isfinite(error) else 0.0


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.3g}%"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
