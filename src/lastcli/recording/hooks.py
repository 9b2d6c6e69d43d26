"""Forward hooks on the modules of a torch model that are a checkpoint's layers. Nothing here imports torch.

A module is found by its tensors: a checkpoint and the model that it is loaded into may name one layer with other
prefixes (a Lightning wrapper, `torch.compile`, data parallelism), but the ends of the names are the same, and so are
the values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lastcli.errors import UsageError
from lastcli.families.base import Layer
from lastcli.model.checkpoint import Checkpoint

__all__ = ["hooked"]

# What torch puts around a module; its own parameters follow.
_WRAPPERS = frozenset({"_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# Models may run in half precision; weights of another model differ by far more.
_SAME = 2.0**-6


Record = Callable[[str, Any], None]


def hooked(module: Any, checkpoint: Checkpoint, record: Record) -> Callable[[], Callable[[], None]]:
    """A function that attaches the hooks, which call `record(name, u)`, and gives one that takes them away.

    Raises:
        UsageError: not a torch module, or its layers are not the checkpoint's.
    """
    if not callable(getattr(module, "named_modules", None)):
        raise UsageError(
            f"A torch.nn.Module is needed as the model whose layers are hooked, not {type(module).__name__}; record "
            "the layers of other models by hand: capture(checkpoint), then record(name, u)."
        )
    modules = dict(module.named_modules())
    tensors = dict([*module.named_parameters(), *module.named_buffers()])
    found = {layer.name: modules[_place(layer, checkpoint, modules, tensors)] for layer in checkpoint.layers}

    def attach() -> Callable[[], None]:
        handles = [
            layer.register_forward_pre_hook(_hook(record, name), with_kwargs=True) for name, layer in found.items()
        ]

        def detach() -> None:
            for handle in handles:
                handle.remove()

        return detach

    return attach


def _hook(record: Record, name: str) -> Callable[[Any, tuple[Any, ...], Mapping[str, Any]], None]:
    def hook(module: Any, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        if module.training:
            raise UsageError(f"layer {name} is in training mode, where dropout changes its inputs; call model.eval().")
        given = next((value for value in (*arguments, *keywords.values()) if hasattr(value, "detach")), None)
        if given is None:
            raise UsageError(f"layer {name}: its module takes no tensor; record its input by hand with record().")
        record(name, given)

    return hook


def _place(layer: Layer, checkpoint: Checkpoint, modules: Mapping[str, Any], tensors: Mapping[str, Any]) -> str:
    """The name of the module that is the layer."""
    stored = [name for name in layer.tensors.values() if name in checkpoint.reader.tensors]
    # a file of one layer alone names no module
    inside = bool(stored) and all(name.startswith(f"{layer.name}.") for name in stored)
    path = layer.name if inside else ""
    by_end = {".".join(_parts(name)): name for name in tensors}
    wanted = [".".join(_parts(name)) for name in stored]
    for prefix in _prefixes(wanted[0], by_end):
        names = {name: by_end.get(_moved(plain, prefix)) for name, plain in zip(stored, wanted)}
        if all(names.values()):
            _same_values(layer, checkpoint, {name: tensors[str(other)] for name, other in names.items()})
            place = _moved(".".join(_parts(path)), prefix) if path else ".".join(prefix[1])
            return next((name for name in modules if ".".join(_parts(name)) == place), place)
    raise UsageError(
        f"layer {layer.name}: the torch model has no parameter {stored[0]!r}, under any prefix; it is not the "
        "checkpoint's model, or names its layers otherwise: record(name, u) takes inputs by hand."
    )


def _parts(name: str) -> list[str]:
    return [part for part in name.split(".") if part not in _WRAPPERS]


def _prefixes(wanted: str, known: Mapping[str, str]) -> list[tuple[int, list[str]]]:
    """(parts to leave out, parts to put before instead) under which the model knows a tensor; the fewest left out."""
    parts = wanted.split(".")
    found = []
    for left in range(len(parts)):
        end = ".".join(parts[left:])
        before = [name[: -len(end)].strip(".") for name in known if name == end or name.endswith(f".{end}")]
        found += [(left, one.split(".") if one else []) for one in sorted(before, key=len)]
    return found


def _moved(name: str, prefix: tuple[int, list[str]]) -> str:
    return ".".join([*prefix[1], *name.split(".")[prefix[0] :]])


def _same_values(layer: Layer, checkpoint: Checkpoint, tensors: Mapping[str, Any]) -> None:
    """The model runs with the checkpoint's weights: moments of other inputs would fit nothing.

    Raises:
        UsageError: it does not.
    """
    for name, tensor in tensors.items():
        stored = np.asarray(checkpoint.read(name))
        if tuple(tensor.shape) != stored.shape:
            raise UsageError(
                f"layer {layer.name}: {name} has shape {stored.shape} in the checkpoint and {tuple(tensor.shape)} in "
                "the torch model; it is another model."
            )
        value = tensor.detach()
        value = (value if value.is_complex() else value.double()).cpu().numpy()
        wide = np.complex128 if np.iscomplexobj(stored) else np.float64
        stored = stored.astype(wide)
        apart = np.abs(value - stored).max(initial=0.0)
        if not apart <= _SAME * max(float(np.abs(stored).max(initial=0.0)), 1e-30):
            raise UsageError(
                f"layer {layer.name}: {name} has other values in the torch model than in the checkpoint; load the "
                "checkpoint into the model first."
            )
