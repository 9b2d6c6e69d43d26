"""Reading torch files without PyTorch: the pickle over inert records, the tensors where their bytes lie in the file.

Nothing in the file is built or run (see `containers.pickle`), and no tensor is read before somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lastcli.containers.base import MODEL_KEY, Reader, TensorInfo
from lastcli.containers.container import IsModel
from lastcli.containers.dtypes import ITEMSIZE, safe_nbytes
from lastcli.containers.extras import STRUCTURE_KEY
from lastcli.containers.inputs import RandomAccess, shown
from lastcli.containers.pickle.foreign import kinds_in
from lastcli.containers.pickle.meaning import Meaning
from lastcli.containers.pickle.settings import settings_in
from lastcli.containers.pickle.values import Tensor, Unread, load
from lastcli.containers.sidecar import sidecar_metadata
from lastcli.containers.structure import merged, take_metadata
from lastcli.containers.torch.archive import read_archive
from lastcli.containers.torch.legacy import nested_storage, read_legacy
from lastcli.containers.torch.models import Contents, find_models, take_apart, tensors_at
from lastcli.errors import InputError, UsageError

__all__ = ["StateDictReader", "is_tensor", "meanings", "open_torch", "opened_note"]

_MAX_EXPANDED = 2**28


def open_torch(path: Path, name: str | None = None, is_model: IsModel | None = None) -> Reader:
    """A torch file: `.pt`, `.pth`, `.ckpt`, `.bin`.

    Raises:
        InputError: a damaged file, or no model in it.
        UsageError: several models and none of them named, or the named one is not there.
    """
    file = RandomAccess(path)
    try:
        start = file.read(0, min(file.size, 4), "its beginning")
        where = shown(path, 1000)
        if start.startswith(b"PK"):
            raw = read_archive(file)
        elif start[:1] == b"\x80":
            raw = read_legacy(file, where)
        else:
            raise InputError(f"{where} is not a torch file; it is damaged or has the wrong suffix.")
        return StateDictReader(path, "torch", file, raw, name, is_model)
    except BaseException:
        file.close()
        raise


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor of a pickle, of a form that is read or not."""
    return isinstance(value, Tensor | Unread)


def meanings(where: str) -> tuple[Meaning, Meaning]:
    """What the values of a pickle mean: objects left as they are, and read as their fields."""

    def nested(data: Any) -> Any:
        return nested_storage(data, where)

    return Meaning(where, nested=nested), Meaning(where, fields=True, nested=nested)


class StateDictReader(Reader):
    """A state_dict, alone or in a dictionary beside other things, in a pickle that was read inertly.

    Args:
        path: the file.
        kind: its container.
        file: the open file, closed with the reader.
        raw: what its pickle holds.
        name: which of several models, or None.
        is_model: what tells a model from other tensors.
    """

    shares = True

    def __init__(
        self, path: Path, kind: str, file: RandomAccess, raw: Any, name: str | None, is_model: IsModel | None
    ) -> None:
        """Find the model.

        Raises:
            InputError: there is none, or one of its tensors is of a form that is not read.
            UsageError: several models and none of them named, or the named one is not there.
        """
        self._file, where = file, shown(path, 1000)
        tree, models, opened = _tree_and_models(raw, where, _known(is_model))
        if not models:
            kinds, _ = kinds_in(raw)
            held = ", ".join(f"'{shown(kind, 80)}'" for kind in list(kinds)[:4])
            what = f" (it holds {held}, of which nothing is built or run)" if kinds else ""
            raise InputError(f"{where} has no tensors in named dictionaries{what}; save the module's state_dict.")
        self.models: tuple[str, ...] = tuple(models)
        recorded = sidecar_metadata(path, kind).get(MODEL_KEY)
        chosen, asked = _choose(self.models, name, recorded, where)
        at = models[chosen]
        contents = take_apart(tree, at, [other for other in models.values() if other != at], is_tensor, where)
        limit = file.size + _MAX_EXPANDED
        tensors = {key: _info(key, tensor, limit, where) for key, tensor in contents.tensors.items()}
        tensors |= _beside(contents, limit, where)
        self._tensors: dict[str, Tensor] = {key: tensor for key, tensor in _all(contents).items() if key in tensors}
        state_dict = tree
        for key in at:
            state_dict = state_dict[key]
        structure = _structure(at, contents, state_dict, self._tensors)
        extras = dict(contents.extras)
        if structure or contents.paths:
            extras[STRUCTURE_KEY] = {
                **({"paths": contents.paths} if contents.paths else {}),
                **({"torch": structure} if structure else {}),
            }
        metadata, more = take_metadata(sidecar_metadata(path, kind), where)
        note = contents.foreign.note
        dropped = (*contents.dropped, *([opened] if opened else []), *([note] if note else []))
        super().__init__(path, kind, tensors, metadata, merged(extras, more), dropped)
        self.model, self.asked = chosen if len(self.models) > 1 else None, asked
        self.settings = settings_in(raw)

    def load(self, name: str) -> np.ndarray:
        """See `Reader.load`."""
        array = load(self._tensors[name], f"tensor '{shown(name)}'")
        array.flags.writeable = False
        return array

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def _tree_and_models(
    raw: Any, where: str, known: Callable[[dict[str, Any]], bool] | None
) -> tuple[Any, dict[str, tuple[str, ...]], str | None]:
    """The file as values, the models in it, and a note where objects are looked into for them.

    That is done only where there is no model outside of objects: what else holds one, such as the settings of a run,
    holds the weights before training.
    """
    found: tuple[Any, dict[str, tuple[str, ...]], str | None] = (None, {}, None)
    for meaning, is_open in zip(meanings(where), (False, True), strict=True):
        tree = meaning.value(raw)
        models = find_models(tree, is_tensor, where, known)
        note = opened_note(raw) if is_open else None
        if models and (known is None or any(known(tensors_at(tree, at, is_tensor)) for at in models.values())):
            return tree, models, note
        if not found[1]:
            found = tree, models, note
    return found


def opened_note(raw: Any) -> str:
    """One sentence on objects that are read as what they hold."""
    kinds = ", ".join(shown(kind, 80) for kind in list(kinds_in(raw)[0])[:4])
    return f"Objects ({kinds}) are read as the tensors they hold, and written as dictionaries of these."


def _known(is_model: IsModel | None) -> Callable[[dict[str, Any]], bool] | None:
    """`is_model` of tensors as the pickle has them; what last does not read is no reason to refuse yet."""
    if is_model is None:
        return None

    def known(tensors: dict[str, Any]) -> bool:
        return is_model(
            {
                name: TensorInfo(name, tensor.shape, tensor.dtype, tensor.size * ITEMSIZE[tensor.dtype])
                for name, tensor in tensors.items()
                if isinstance(tensor, Tensor) and tensor.dtype in ITEMSIZE
            }
        )

    return known


def _choose(models: tuple[str, ...], name: str | None, recorded: str | None, where: str) -> tuple[str, str | None]:
    """The name of the model to read, and what remains of `name` to choose within it.

    Args:
        recorded: what the file was written from, for a name that is not given.
    """
    listed = ", ".join(f"'{shown(model)}'" for model in models)
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


def _all(contents: Contents) -> dict[str, Any]:
    return {**contents.tensors, **contents.beside}


def _beside(contents: Contents, limit: int, where: str) -> dict[str, TensorInfo]:
    """What stands beside the model; a tensor of a form that is not read is left out."""
    found = {}
    for name, tensor in contents.beside.items():
        if isinstance(tensor, Unread) or tensor.dtype not in ITEMSIZE:
            contents.foreign.add(name, tensor)
        else:
            found[name] = _info(name, tensor, limit, where)
    return found


def _info(name: str, tensor: Tensor | Unread, limit: int, where: str) -> TensorInfo:
    """Shape and dtype, for dense tensors whose bytes the file really has."""
    label = f"{where}: tensor '{shown(name)}'"
    if isinstance(tensor, Unread):
        raise InputError(f"{label} is {shown(tensor.kind)}; last reads dense tensors only, save it as one.")
    if tensor.dtype not in ITEMSIZE:
        raise InputError(f"{label} has dtype {shown(tensor.dtype)}, which last does not support; convert it first.")
    nbytes = safe_nbytes(tensor.shape, tensor.dtype)
    if nbytes is None or nbytes > limit:
        raise InputError(
            f"{label} of shape {shown(tensor.shape)} is far larger than the file; it is damaged or hostile."
        )
    return TensorInfo(name, tensor.shape, tensor.dtype, nbytes)


def _structure(
    at: tuple[str, ...], contents: Contents, state_dict: Any, tensors: Mapping[str, Tensor]
) -> dict[str, Any]:
    """What a rewritten file needs to have the same wrappers, as JSON-like values."""
    structure: dict[str, Any] = {}
    if at:
        structure["at"] = list(at)
    if contents.prefix:
        structure["prefix"] = contents.prefix
    if contents.nested:
        structure["nested"] = True
    beside = {name: list(contents.besides[name]) for name in contents.beside if name in tensors}
    if beside:
        structure["beside"] = beside
    if contents.others:
        structure["others"] = contents.others
    metadata = getattr(state_dict, "_metadata", None)
    if isinstance(metadata, dict) and all(
        isinstance(key, str) and isinstance(value, dict) and all(type(item) is int for item in value.values())
        for key, value in metadata.items()
    ):
        structure["versions"] = {key: dict(value) for key, value in metadata.items()}
    shared = _shared(tensors)
    if shared:
        structure["shared"] = shared
    return structure


def _shared(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """Groups of names that are one tensor (the same bytes, shape and strides)."""
    groups: dict[Any, list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.size:
            storage = tensor.storage
            place = id(storage.access), storage.offset, tensor.offset
            look = tensor.dtype, tensor.shape, tensor.strides, tensor.conj, tensor.neg
            groups.setdefault((place, look), []).append(name)
    return [names for names in groups.values() if len(names) > 1]
