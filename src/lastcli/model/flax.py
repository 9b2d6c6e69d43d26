"""Loading a checkpoint, pruned or not, into the flax module that `last` itself runs.

The module's parameter tree is the checkpoint's own, with a state size for every layer, so a compact S5 loads as it is.
"""

from __future__ import annotations

from typing import Any

from lastcli.errors import UnsupportedModelError
from lastcli.families.s5.names import find_wrapper, spelled, tree_of
from lastcli.model.checkpoint import Checkpoint

__all__ = ["flax_module"]


def flax_module(checkpoint: Checkpoint) -> tuple[Any, dict[str, Any]]:
    """The model as a flax module and its variables.

    Args:
        checkpoint: an S5 in the published spelling, from `lastcli.open`.

    Returns:
        An `S5Model` and `{"params": ..., "batch_stats": ...}` (the latter where the model has them):
        `module.apply(variables, x, lengths)` gives log-probabilities (n, classes), or what the task asks for.

    Raises:
        UnsupportedModelError: another family, or not the published model around the layers.
    """
    tensors, files = checkpoint.view.naming.view(checkpoint.reader.tensors)
    wrapper = find_wrapper(tensors) if checkpoint.family.name == "s5" else None
    if wrapper is None:
        raise UnsupportedModelError(f"{checkpoint.path}: only the published S5 model loads into the flax module.")
    module = wrapper.module(checkpoint.config, checkpoint.layers)
    collections: dict[str, dict[tuple[str, ...], Any]] = {"params": {}, "batch_stats": {}}
    for name in tensors:
        path = spelled(name)
        kind = "batch_stats" if "batch_stats" in path or path[-2:] in (("norm", "mean"), ("norm", "var")) else "params"
        starts = [i for i, part in enumerate(path) if part in ("encoder", "decoder")]
        if starts:
            collections[kind][path[starts[0] :]] = checkpoint.read(files[name])
    return module, {kind: tree_of(leaves) for kind, leaves in collections.items() if leaves}
