"""`recipe init`: a first recipe for a checkpoint, from what inspect finds in it."""

from __future__ import annotations

import os
from pathlib import Path

from lastcli.containers import CONTAINERS
from lastcli.errors import LastError
from lastcli.families.base import Forward
from lastcli.model.checkpoint import Checkpoint
from lastcli.model.description import Setting
from lastcli.plan import BUNDLED, METHODS
from lastcli.reduction.feasible import misfit
from lastcli.results import DraftOption, DraftRecipe
from lastcli.verbs.shared.session import Session

__all__ = ["init"]

# What people compare first, where it fits; without calibration inputs.
_TRIED = ("last", "aire", "obs")
_KNOWN = ("flag", "file", "sidecar", "tensors")


def init(session: Session, out: Path, *, schema_file: str | None = None) -> DraftRecipe:
    """A recipe that passes `recipe check`, and runs once it has data.

    Args:
        out: where it will stand; the checkpoint is named relative to its folder.
        schema_file: a schema that stands beside it.

    Raises:
        UnsupportedModelError: see `open_checkpoint`.
    """
    checkpoint, bundled = session.checkpoint, session.source.bundled
    family = checkpoint.family
    forward = _forward(checkpoint)
    return DraftRecipe(
        checkpoint=BUNDLED if bundled else _place(session.source.path, out.parent),
        about=f"{family.title}, {_layers(checkpoint)}, {checkpoint.parameters:,} parameters",
        family=family.name,
        options=tuple(
            _option(checkpoint, key, setting)
            for key, setting in checkpoint.settings.items()
            if setting.source != "idle"
        ),
        map=family.described(checkpoint.reader.tensors),
        naming={key: getattr(session.plan, key) for key in ("name", "like") if getattr(session.plan, key) is not None},
        data=f"{BUNDLED}:test" if bundled else None,
        calibration=f"{BUNDLED}:calibration" if bundled else None,
        x="the inputs that your own `forward` takes" if forward is None else _inputs(forward),
        y="their labels or targets" if forward is None else _outputs(forward),
        metric=None if forward is None else _metric(forward),
        integers=forward is not None and not forward.tokens,
        methods=_methods(checkpoint),
        out=_output(checkpoint, bundled=bundled),
        schema_file=schema_file,
    )


def _place(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()


def _layers(checkpoint: Checkpoint) -> str:
    layers = checkpoint.layers
    sizes = sorted({layer.states for layer in layers})
    each = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    sets = max(layer.sets for layer in layers)
    channels = "" if sets == 1 else f" in each of {sets} channels"
    return f"{len(layers)} {'layer' if len(layers) == 1 else 'layers'} of {each} states{channels}"


def _option(checkpoint: Checkpoint, key: str, setting: Setting) -> DraftOption:
    """An option; what labels may still settle, and what a smaller model has otherwise, is left open."""
    option = next(option for option in checkpoint.family.options if option.key == key)
    settled = (
        setting.source in _KNOWN
        and setting.value is not None
        and (setting.source == "flag" or (key != "task" and key not in checkpoint.family.sized))
    )
    return DraftOption(
        key=key,
        value=setting.value,
        source=setting.source,
        help=option.help,
        choices=option.choices or ((True, False) if option.kind is bool else ()),
        settled=settled,
    )


def _methods(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The family's own first; those that cannot run on this model without calibration inputs are left out."""
    names = dict.fromkeys((checkpoint.family.default_methods[0], *_TRIED))
    fitting = [
        name
        for name in names
        if not METHODS[name].needs_calibration
        and misfit(checkpoint, METHODS[name], METHODS[name].refit(calibrated=False)) is None
    ]
    return tuple(fitting) or (checkpoint.family.default_methods[0],)


def _output(checkpoint: Checkpoint, *, bundled: bool) -> str:
    """Where prune writes, in the container of the input where that is one that can be written."""
    container = CONTAINERS[checkpoint.reader.kind]
    stem = "digits" if bundled else checkpoint.path.absolute().stem or "model"
    if container.write is None:
        return f"{stem}-small.safetensors"
    if checkpoint.path.is_file():
        own = checkpoint.path.suffix
        return f"{stem}-small{own if own in container.suffixes else container.suffixes[0]}"
    return f"{stem}-small{container.suffixes[0] if container.suffixes else ''}"


def _forward(checkpoint: Checkpoint) -> Forward | None:
    """The model around the layers, where it is known and can be read."""
    try:
        return checkpoint.forward
    except LastError:
        return None


def _inputs(forward: Forward) -> str:
    several = {"pair": "2, ", "series": f"{forward.series}, "}.get(forward.layout, "")
    if forward.tokens:
        return f"(n, {several}L) tokens, whole numbers below {forward.features}"
    one = f", or (n, {several}L)" if forward.features == 1 else ""
    return f"(n, {several}L, {forward.features}){one}, numbers of any real dtype"


def _outputs(forward: Forward) -> str:
    if _is_next_token(forward):
        return "not needed: the next token is the label"
    steps = "L, " if forward.sequence else ""
    if forward.task in ("classification", "retrieval"):
        classes = 2 if forward.outputs == 1 else forward.outputs
        return f"(n,{' L' if forward.sequence else ''}) classes, whole numbers below {classes}"
    kind = "0 or 1" if forward.task == "multilabel" else "numbers"
    return f"(n, {steps}{forward.outputs}), {kind}"


def _metric(forward: Forward) -> str:
    if _is_next_token(forward):
        return "perplexity"
    return {"multilabel": "auroc_macro", "regression": "mse"}.get(forward.task, "accuracy")


def _is_next_token(forward: Forward) -> bool:
    return forward.tokens and forward.sequence and forward.generates is not None
