"""Reading a folder of safetensors shards with its `*.safetensors.index.json`, every claim of the index checked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from lastcli.containers.base import Reader, TensorInfo
from lastcli.containers.companions import is_companion
from lastcli.containers.inputs import read_small, shown
from lastcli.containers.safetensors.reader import MAX_HEADER, SafetensorsReader, Stretch
from lastcli.containers.structure import take_metadata
from lastcli.errors import InputError
from lastcli.mappings import parse_json

__all__ = ["INDEX_SUFFIX", "ShardedReader", "open_safetensors", "stranger"]

INDEX_SUFFIX = ".safetensors.index.json"


def open_safetensors(path: Path) -> Reader:
    """Open one file, an index, or a folder by its index or its only file.

    Raises:
        InputError: damaged, or a folder that does not say which files count.
    """
    if path.name.endswith(INDEX_SUFFIX):
        return ShardedReader(path)
    if not path.is_dir():
        return SafetensorsReader(path)
    index = _find_index(path)
    if index is not None:
        return ShardedReader(index)
    files = sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        names = ", ".join(shown(file.name) for file in files[:5]) + (" ..." if len(files) > 5 else "")
        raise InputError(
            f"{shown(path, 1000)} has {len(files)} safetensors files and no index ({names}); give one of them or add "
            f"NAME{INDEX_SUFFIX}."
        )
    return SafetensorsReader(files[0])


def stranger(folder: Path) -> str | None:
    """The first file that is neither the one index, a shard it names, nor a companion of it; see `base.Folder`.

    Raises:
        InputError: the index is damaged.
    """
    names = sorted(item.name for item in folder.iterdir())
    indexes = [name for name in names if name.endswith(INDEX_SUFFIX)]
    if len(indexes) != 1:
        return next((name for name in names if name.endswith(".safetensors")), names[0] if names else None)
    reader = ShardedReader(folder / indexes[0])
    reader.close()
    own = {indexes[0], *reader.shards}
    return next((name for name in names if name not in own and not is_companion(name)), None)


def _find_index(folder: Path) -> Path | None:
    found = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    if len(found) > 1:
        raise InputError(f"{shown(folder, 1000)} has {len(found)} safetensors indexes; give the path of one of them.")
    return found[0] if found else None


class ShardedReader(Reader):
    """Several safetensors files and the index that says which tensor is in which."""

    in_pieces = True

    def __init__(self, index: Path) -> None:
        """Open every shard and check it against the index.

        Raises:
            InputError: the index leads out of the folder, or index and shards disagree.
        """
        self._where = shown(index, 1000)
        document = parse_json(read_small(index, MAX_HEADER), self._where)
        weight_map = document.get("weight_map") if isinstance(document, dict) else None
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise InputError(f"{self._where} has no weight_map from tensor names to shard files; it is damaged.")
        self._weight_map: dict[str, str] = weight_map
        self._shards: dict[str, SafetensorsReader] = {}
        try:
            for name in dict.fromkeys(weight_map.values()):
                self._shards[name] = SafetensorsReader(_shard_path(index, name))
            tensors = self._tensors()
            metadata, extras = take_metadata(self._metadata(document.get("metadata"), tensors), self._where)
            super().__init__(index.parent, "safetensors", tensors, metadata, extras)
        except BaseException:
            self.close()
            raise
        self.digests = {name: digest for shard in self._shards.values() for name, digest in shard.digests.items()}

    @property
    def shards(self) -> tuple[str, ...]:
        """The names of the files."""
        return tuple(self._shards)

    def outline(self, shard: str) -> list[bytes | str]:
        """See `SafetensorsReader.outline`."""
        return self._shards[shard].outline()

    def load(self, name: str) -> np.ndarray:
        """See `Reader.load`."""
        return self._shards[self._weight_map[name]].load(name)

    def load_pieces(self, name: str) -> Stretch:
        """See `Reader.load_pieces`."""
        return self._shards[self._weight_map[name]].load_pieces(name)

    def close(self) -> None:
        """Release the files."""
        for shard in self._shards.values():
            shard.close()

    def _tensors(self) -> dict[str, TensorInfo]:
        for file, shard in self._shards.items():
            for name in shard.tensors:
                if self._weight_map.get(name) != file:
                    fault = "is in two shards" if name in self._weight_map else "is not in the index"
                    raise InputError(
                        f"{self._where}: tensor '{shown(name)}' of {shown(file)} {fault}; rebuild the index."
                    )
        tensors: dict[str, TensorInfo] = {}
        for name, file in self._weight_map.items():
            info = self._shards[file].tensors.get(name)
            if info is None:
                raise InputError(
                    f"{self._where}: tensor '{shown(name)}' is not in {shown(file)}, where the index puts it."
                )
            tensors[name] = info
        return tensors

    def _metadata(self, value: Any, tensors: dict[str, TensorInfo]) -> dict[str, str]:
        """The index's metadata; what all shards say alike counts where the index says nothing."""
        own = dict(value) if isinstance(value, dict) else {}
        total, actual = own.pop("total_size", None), sum(info.nbytes for info in tensors.values())
        if total is not None and total != actual:
            raise InputError(f"{self._where} says total_size {shown(total)} but the tensors have {actual:,} bytes.")
        common: dict[str, str] = {}
        shards = [dict(shard.metadata) for shard in self._shards.values()]
        if shards:
            common = {key: text for key, text in shards[0].items() if all(other.get(key) == text for other in shards)}
        texts = {key: item if isinstance(item, str) else json.dumps(item) for key, item in own.items()}
        return {**common, **texts}


def _shard_path(index: Path, name: str) -> Path:
    """A shard's path; a plain file name, and if it is a link, one that stays in the folder."""
    where = shown(index, 1000)
    plain = name and name not in (".", "..") and not any(bad in name for bad in ("/", "\\", ":", "\0"))
    if not plain or len(name.encode("utf-8", "replace")) > 255:
        raise InputError(
            f"{where} names the shard '{shown(name)}', which is not a plain file name; do not use this file."
        )
    path = index.parent / name
    if path.is_symlink():
        real, folder = Path(os.path.realpath(path)), Path(os.path.realpath(index.parent))
        # a Hugging Face cache keeps snapshots/REVISION/NAME as links to blobs/HASH beside snapshots
        if real.parent not in (folder, folder.parent.parent / "blobs"):
            raise InputError(
                f"{where}: the shard '{shown(name)}' is a link out of its folder; copy the file there instead."
            )
    return path
