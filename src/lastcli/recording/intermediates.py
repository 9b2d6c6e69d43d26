"""Inputs of flax layers by way of `sow`: nothing is traced twice, and it works under `jax.jit` and `jax.vmap`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lastcli.errors import UsageError
from lastcli.recording.names import plain

__all__ = ["SOWN", "sow_input", "sown"]

SOWN = "layer_inputs"


def sow_input(is_layer: Callable[[str], bool], arguments: Sequence[Any], context: Any) -> None:
    """Let a flax module sow its first argument, if it is a layer of the checkpoint that is being called."""
    if context.method_name == "__call__" and arguments and is_layer(".".join(context.module.path)):
        context.module.sow("intermediates", SOWN, arguments[0])


def sown(names: Sequence[str], intermediates: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(layer, input), call by call, of a collection of intermediates.

    Raises:
        UsageError: a layer has no entry, or several of which none is called `SOWN`.
    """
    for name in names:
        found = _inside(intermediates, plain(name).split("."))
        entry = found.get(SOWN) if SOWN in found or len(found) != 1 else next(iter(found.values()))
        if entry is None:
            what = f"only {', '.join(map(repr, found))}" if found else "nothing"
            raise UsageError(
                f"layer {name}: the intermediates hold {what} of it; let it sow its input as {SOWN!r} "
                "(flax.linen.intercept_methods(capture.sow) does)."
            )
        for u in entry if isinstance(entry, (tuple, list)) else (entry,):
            yield name, u


def _inside(tree: Any, path: Sequence[str]) -> Mapping[str, Any]:
    for part in path:
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    entries = tree.items() if isinstance(tree, Mapping) else ()
    return {key: value for key, value in entries if not isinstance(value, Mapping)}
