"""`inspect`: what is in a checkpoint, and what was assumed about it. Imports no JAX."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from lastcli import containers
from lastcli.engine.engines import engine_of
from lastcli.model.checkpoint import Checkpoint
from lastcli.results import ConfigValue, InspectResult, LayerInfo

if TYPE_CHECKING:
    from lastcli.results import Anatomy

__all__ = ["inspect"]


def inspect(checkpoint: Checkpoint, *, anatomy: bool = False) -> InspectResult:
    """Family, layers, states, parameters, bytes and the source of every option; only the layers' tensors are decoded.

    Args:
        anatomy: also keep what the pictures of a report are drawn from.

    Raises:
        UnsupportedModelError: see `open_checkpoint`.
    """
    tensors = checkpoint.reader.tensors
    layers = tuple(_layer(checkpoint, index) for index in range(len(checkpoint.layers)))
    notes = list(checkpoint.notes)
    states = sum(layer.states * layer.sets for layer in layers)
    if states != checkpoint.states:
        notes.append(
            f"The tensors hold {checkpoint.states} states; diagonalised, as they are scored and pruned, they are "
            f"{states}: a real pole takes a state of its own."
        )
    if checkpoint.understood.offer is not None:
        notes.append(checkpoint.understood.offer)
    assumed = [key for key, setting in checkpoint.settings.items() if setting.source == "assumed"]
    if assumed:
        notes.append(f"Assumed, since nothing says otherwise: {', '.join(assumed)} (set with --set or a sidecar).")
    return InspectResult(
        checkpoint=checkpoint.label,
        family=checkpoint.family.name,
        title=checkpoint.family.title,
        container=checkpoint.reader.kind,
        layers=layers,
        states=states,
        parameters=checkpoint.parameters,
        bytes=containers.stored_bytes(checkpoint.path),
        state_bytes=None if checkpoint.decoding is None else checkpoint.decoding.state_bytes,
        multiply_adds=None if checkpoint.decoding is None else checkpoint.decoding.multiply_adds,
        config={
            key: ConfigValue(value=s.value, source=s.source)
            for key, s in checkpoint.settings.items()
            if s.source != "idle"
        },
        tensors=len(tensors),
        dtypes=dict(Counter(info.dtype for info in tensors.values())),
        provenance=dict(checkpoint.provenance) or None,
        notes=tuple(notes),
        anatomy=_anatomy(checkpoint) if anatomy else None,
    )


def _anatomy(checkpoint: Checkpoint) -> Anatomy:
    from lastcli.verbs.shared.anatomy import full_anatomy  # with the reductions, which nothing else here needs

    return full_anatomy(checkpoint)


def _layer(checkpoint: Checkpoint, index: int) -> LayerInfo:
    layer = checkpoint.layers[index]
    tensors = checkpoint.reader.tensors
    system = checkpoint.family.system(layer, checkpoint.config, checkpoint.read)
    form = system.form
    own = [tensors[name] for name in layer.tensors.values() if name in tensors]
    return LayerInfo(
        name=layer.name,
        states=system.states,
        sets=system.sets,
        inputs=form["inputs"] * (form["groups"] if system.multi else 1),
        outputs=form["outputs"] * (form["groups"] if system.multi else 1),
        directions=form["directions"],
        max_abs_pole=engine_of(system).largest_pole(system),
        parameters=sum(info.size for info in own),
        inside=checkpoint.family.inside(layer, tensors),
    )
