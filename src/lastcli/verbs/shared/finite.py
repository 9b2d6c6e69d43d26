"""Is what a model answers something that others can be fitted to?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcli.errors import InputError
from lastcli.model.checkpoint import Checkpoint

if TYPE_CHECKING:
    from lastcli.evaluation.data import Split

__all__ = ["require_finite_outputs"]


def require_finite_outputs(checkpoint: Checkpoint, split: Split, batch_size: int | None) -> None:
    """Refuse a model whose outputs on inputs without labels are not finite, where those outputs are what is fitted.

    Raises:
        InputError: which file, how many examples, and which tensor is the reason.
    """
    from lastcli.evaluation.passes import model_outputs
    from lastcli.evaluation.soundness import count_non_finite, what_is_wrong

    forward, params, bad, start = checkpoint.require_forward(), checkpoint.params, 0, 0
    for outputs in model_outputs(forward, params, checkpoint.systems, split, batch_size=batch_size):
        lengths = None if split.lengths is None else split.lengths[start : start + len(outputs)]
        bad += count_non_finite(outputs, forward.task, lengths, forward.output_step)
        start += len(outputs)
    if bad:
        raise InputError(what_is_wrong(checkpoint.label, bad, split.n, split.name, params))
