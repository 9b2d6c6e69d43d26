"""Reading torch files through PyTorch: always `weights_only=True`, on the CPU, memory-mapped where the file allows.

The format is a pickle, which PyTorch's safe loader knows best. Before PyTorch sees a file, its archive is checked (see
`archive`). What the safe loader refuses is an error that names the global asked for; nothing is ever loaded the unsafe
way. A mapped file that is cut short while it is read ends the process, as with any mapping.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lastcli.containers.base import MODEL_KEY, Reader, TensorInfo
from lastcli.containers.container import IsModel
from lastcli.containers.dtypes import ITEMSIZE, dtype_of, safe_nbytes
from lastcli.containers.extras import STRUCTURE_KEY
from lastcli.containers.inputs import shown
from lastcli.containers.sidecar import sidecar_metadata
from lastcli.containers.structure import merged, take_metadata
from lastcli.containers.torch.archive import FAULTS, check_archive
from lastcli.containers.torch.models import Contents, find_models, take_apart
from lastcli.errors import InputError, UsageError

__all__ = ["INSTALL", "TorchReader"]

INSTALL = "torch files need PyTorch: pip install 'lastcli[torch]'"

_MAX_EXPANDED = 2**28


class TorchReader(Reader):
    """A torch file: `.pt`, `.pth`, `.ckpt`, `.bin`."""

    shares = True

    def __init__(self, path: Path, name: str | None = None, is_model: IsModel | None = None) -> None:
        """Load the structure; with a memory map the tensors' bytes stay in the file.

        Raises:
            InputError: no torch, a damaged or refused file, or no model in it.
            UsageError: several models and none of them named, or the named one is not there.
        """
        where = shown(path, 1000)
        is_zip = check_archive(path)
        torch = _import_torch(where)
        tree = _load(torch, path, is_zip)
        models = find_models(tree, torch.is_tensor, where, _known(is_model))
        self.models: tuple[str, ...] = tuple(models)
        recorded = sidecar_metadata(path, "torch").get(MODEL_KEY)
        chosen, asked = _choose(self.models, name, recorded, where)
        at = models[chosen]
        contents = take_apart(tree, at, [other for other in models.values() if other != at], torch.is_tensor, where)
        self._torch, self._tensors = torch, {**contents.tensors, **contents.beside}
        limit = path.stat().st_size + _MAX_EXPANDED
        tensors = {key: _info(key, tensor, limit, where) for key, tensor in self._tensors.items()}
        state_dict = tree
        for key in at:
            state_dict = state_dict[key]
        structure = _structure(at, contents, state_dict)
        extras = dict(contents.extras)
        if structure or contents.paths:
            extras[STRUCTURE_KEY] = {
                **({"paths": contents.paths} if contents.paths else {}),
                **({"torch": structure} if structure else {}),
            }
        metadata, more = take_metadata(sidecar_metadata(path, "torch"), where)
        super().__init__(path, "torch", tensors, metadata, merged(extras, more), tuple(contents.dropped))
        self.model, self.asked = chosen if len(self.models) > 1 else None, asked

    def load(self, name: str) -> np.ndarray:
        """See `Reader.load`. The array is read-only where it is a view of the mapped file."""
        tensor = self._tensors[name].detach()
        info = self.tensors[name]
        tensor = tensor.resolve_conj().resolve_neg().contiguous()
        if not hasattr(np, info.dtype) and info.dtype != "bool":
            integer = {1: self._torch.uint8, 2: self._torch.int16}[ITEMSIZE[info.dtype]]
            array = tensor.view(integer).numpy().view(dtype_of(info.dtype))
        else:
            array = tensor.numpy()
        array.flags.writeable = False
        return array

    def close(self) -> None:
        """Let go of the tensors, and with them of the mapped file."""
        self._tensors = {}


def _known(is_model: IsModel | None) -> Callable[[dict[str, Any]], bool] | None:
    """`is_model` of tensors as PyTorch has them; what last does not read is no reason to refuse yet."""
    if is_model is None:
        return None

    def known(tensors: dict[str, Any]) -> bool:
        dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
        return is_model(
            {
                name: TensorInfo(name, tuple(tensor.shape), dtypes[name], tensor.numel() * ITEMSIZE[dtypes[name]])
                for name, tensor in tensors.items()
                if dtypes[name] in ITEMSIZE
            }
        )

    return known


def _import_torch(where: str) -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise InputError(f"{where}: {INSTALL}") from error
    return torch


def _load(torch: ModuleType, path: Path, is_zip: bool) -> Any:
    """The object in the file.

    Raises:
        InputError: the safe loader refuses it or it is damaged.
    """
    where = shown(path, 1000)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except FAULTS as error:
        text = str(error)
        refused = re.search(r"GLOBAL ([\w.]+)", text)
        if refused:
            raise InputError(
                f"{where} asks to run or build '{shown(refused[1])}', which the safe loader refuses; save the module's "
                "state_dict only."
            ) from error
        lines = [line for line in text.splitlines() if line.strip() and "Weights only load failed" not in line]
        raise InputError(
            f"{where} cannot be loaded ({shown(lines[0] if lines else error, 200)}); it is damaged."
        ) from error


def _choose(models: tuple[str, ...], name: str | None, recorded: str | None, where: str) -> tuple[str, str | None]:
    """The name of the model to read, and what remains of `name` to choose within it.

    Args:
        recorded: what the file was written from, for a name that is not given.
    """
    listed = ", ".join(f"'{shown(model)}'" for model in models)
    if not models:
        raise InputError(f"{where} has no tensors in named dictionaries; save the module's state_dict.")
    for asked in (name, recorded):
        if asked in models:
            return str(asked), None
        begins = [model for model in models if model and asked is not None and asked.startswith(f"{model}/")]
        if begins:
            return max(begins, key=len), str(asked).removeprefix(max(begins, key=len) + "/")
        if name is not None:
            break
    if len(models) == 1:
        return models[0], name
    if name is not None:
        raise UsageError(f"{where} has no model '{shown(name)}'; it has {listed}.")
    raise UsageError(f"{where} holds {len(models)} models; name one of them with --name: {listed}.")


def _info(name: str, tensor: Any, limit: int, where: str) -> TensorInfo:
    """Shape and dtype, for dense CPU tensors whose bytes the file really has."""
    label = f"{where}: tensor '{shown(name)}'"
    dtype = str(tensor.dtype).removeprefix("torch.")
    layout = str(tensor.layout).removeprefix("torch.")
    if layout != "strided" or tensor.is_quantized or tensor.device.type != "cpu":
        kind = "quantized" if tensor.is_quantized else f"{layout} on device {tensor.device.type}"
        raise InputError(f"{label} is {kind}; last reads dense tensors only, save it as one.")
    if dtype not in ITEMSIZE:
        raise InputError(f"{label} has dtype {dtype}, which last does not support; convert it first.")
    shape = tuple(tensor.shape)
    nbytes = safe_nbytes(shape, dtype)
    if nbytes is None or nbytes > limit:
        raise InputError(f"{label} of shape {shown(shape)} is far larger than the file; it is damaged or hostile.")
    return TensorInfo(name, shape, dtype, nbytes)


def _structure(at: tuple[str, ...], contents: Contents, state_dict: Any) -> dict[str, Any]:
    """What a rewritten file needs to have the same wrappers, as JSON-like values."""
    structure: dict[str, Any] = {}
    if at:
        structure["at"] = list(at)
    if contents.prefix:
        structure["prefix"] = contents.prefix
    if contents.nested:
        structure["nested"] = True
    if contents.beside:
        structure["beside"] = {name: list(contents.besides[name]) for name in contents.beside}
    if contents.others:
        structure["others"] = contents.others
    metadata = getattr(state_dict, "_metadata", None)
    if isinstance(metadata, dict) and all(
        isinstance(key, str) and isinstance(value, dict) and all(type(item) is int for item in value.values())
        for key, value in metadata.items()
    ):
        structure["versions"] = {key: dict(value) for key, value in metadata.items()}
    shared = _shared({**contents.tensors, **contents.beside})
    if shared:
        structure["shared"] = shared
    return structure


def _shared(tensors: dict[str, Any]) -> list[list[str]]:
    """Groups of names that are one tensor (the same bytes, shape and strides)."""
    groups: dict[Any, list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.numel():
            key = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
            groups.setdefault(key, []).append(name)
    return [names for names in groups.values() if len(names) > 1]
