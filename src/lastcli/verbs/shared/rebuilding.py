"""From reductions to a checkpoint on disk: changed tensors rebuilt, everything else copied through as bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lastcli import containers
from lastcli.containers.base import Reader, TensorSource
from lastcli.containers.memory import MemoryReader
from lastcli.engine.protocol import Reduction
from lastcli.errors import UsageError
from lastcli.families.parts.leaves import canonical, split
from lastcli.model import description
from lastcli.model.checkpoint import Checkpoint
from lastcli.model.description import Setting
from lastcli.verbs.shared.record import UNKNOWN
from lastcli.verbs.shared.remade import Remade
from lastcli.verbs.shared.upstream_config import config_text

__all__ = [
    "Rebuilt",
    "as_checkpoint",
    "changed_sources",
    "companions_brought",
    "in_memory",
    "rebuild",
    "shards_for",
    "write_checkpoint",
]


# The largest shard of a folder that is written for other programs, as transformers has it.
HUB_SHARDS = 5 * 10**9

# What the code of a layer calls the number of its states.
_COUNTS = {"N", "P", "d_state", "num_states", "ssm_size", "state_dim", "state_size"}


@dataclass(frozen=True)
class Rebuilt:
    """The tensors of a reduced model, not yet written.

    Attributes:
        sources: every tensor of the output in the order of the input.
        sizes: stored states written for one index set of each layer, inert ones included.
        uncounted: tensors of other models, and second names of tensors.
        shared: second names that take no bytes of their own.
        reductions: what it was made of.
    """

    sources: tuple[TensorSource, ...]
    sizes: tuple[int, ...]
    uncounted: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    reductions: tuple[Reduction, ...] = ()

    def identity(self) -> str:
        """A digest of the reductions: which states are kept, and the values of what is computed."""
        digest = hashlib.sha256()
        for reduction in self.reductions:
            arrays = [reduction.kept, *(vars(reduction.system).values() if reduction.changed != "none" else ())]
            for array in arrays:
                if hasattr(array, "shape"):
                    values = np.ascontiguousarray(array)
                    digest.update(f"{reduction.changed}{values.dtype.str}{values.shape}".encode())
                    digest.update(values.data)
        return digest.hexdigest()

    @property
    def copied(self) -> frozenset[str]:
        """Tensors that are copied through as bytes."""
        return frozenset(source.info.name for source in self.sources if source.prove is not None)

    @property
    def parameters(self) -> int:
        """Elements over all tensors of the model, once for those with two names."""
        return sum(source.info.size for source in self.sources if source.info.name not in self.uncounted)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, without what the container adds."""
        return sum(source.info.nbytes for source in self.sources if source.info.name not in self.shared)


def rebuild(checkpoint: Checkpoint, reductions: Sequence[Reduction], layout: str) -> Rebuilt:
    """The tensors of the reduced model in the checkpoint's own names, shapes and dtypes.

    Args:
        layout: "padded" fills every layer to the largest count; the others write the counts of the reductions
            with inert states.
    """
    counts = [reduction.system.states for reduction in reductions]
    sizes = [max(counts)] * len(counts) if layout == "padded" else counts
    checkpoint.check_sizes(sizes)

    def make(index: int) -> Mapping[str, np.ndarray | None]:
        layer, reduction, size = checkpoint.layers[index], reductions[index], sizes[index]
        return checkpoint.family.rebuild(layer, checkpoint.config, checkpoint.read, reduction, size)

    remade = Remade(make)
    changed: dict[str, TensorSource | None] = {}
    for index in range(len(checkpoint.layers)):
        for name, source in remade.layer(index).items():
            if name in changed and not _same(changed[name], source):
                raise UsageError(f"The layers share the tensor {name}, so they cannot keep different states.")
            changed[name] = source
    sources = changed_sources(checkpoint, changed)
    again = frozenset(name for first in changed for name in checkpoint.second_names(first))
    shared = checkpoint.reader.second_names | (again if checkpoint.reader.shares else frozenset())
    return Rebuilt(sources, tuple(sizes), again | checkpoint.uncounted, shared, tuple(reductions))


def in_memory(changed: Mapping[str, np.ndarray | None]) -> dict[str, TensorSource | None]:
    """Arrays as `changed_sources` takes them."""
    return {name: None if array is None else TensorSource.of(name, array) for name, array in changed.items()}


def changed_sources(checkpoint: Checkpoint, changed: Mapping[str, TensorSource | None]) -> tuple[TensorSource, ...]:
    """Every tensor of the output: `changed` ones new (None: left out), all others copied through, in file order.

    A tensor that has a second name in the file gets it in the output.
    """
    changed = dict(changed)
    for first, source in [*changed.items()]:
        for again in checkpoint.second_names(first):
            changed[again] = None if source is None else source.named(again)
    there = checkpoint.reader.tensors
    kept = [changed[name] if name in changed else TensorSource.copied(checkpoint.reader, name) for name in there]
    added = [source for name, source in changed.items() if name not in there]
    return tuple(source for source in (*kept, *added) if source is not None)


def _same(first: TensorSource | None, second: TensorSource | None) -> bool:
    if first is None or second is None:
        return first is second
    return first.info == second.info and first.load().tobytes() == second.load().tobytes()


def as_checkpoint(checkpoint: Checkpoint, rebuilt: Rebuilt) -> Checkpoint:
    """The reduced model as an open checkpoint in memory, read through its family like any file."""
    reader = MemoryReader(checkpoint.path, rebuilt.sources)
    family = checkpoint.family
    # what follows from the state counts is told by the tensors again
    defaults = {option.key: option.default for option in family.options}
    follows = {key: Setting(defaults[key], "assumed") for key in family.sized}
    settings = {**checkpoint.settings, **follows}
    changed = family.rebuilt_config(checkpoint.config)
    if changed.get("family", family.name) != family.name:
        from lastcli.families import successor

        family = checkpoint.view.over(successor(family, changed.pop("family"), reader.tensors))
        settings = {key: Setting(value, "file") for key, value in changed.items()}
    reduced = Checkpoint(reader, family, settings, checkpoint.description, checkpoint.view)
    reduced.take_copies(checkpoint, rebuilt.copied)
    if checkpoint.settled_task is not None:
        reduced.take_task(checkpoint.settled_task)
    return reduced


def shards_for(checkpoint: Checkpoint, out: Path, shard_bytes: int | None) -> int | None:
    """The shards of an output: as asked for, and where a folder that other programs load becomes a folder, theirs."""
    hub = checkpoint.description.upstream is not None and checkpoint.reader.kind == "safetensors"
    return HUB_SHARDS if shard_bytes is None and hub and not out.suffix else shard_bytes


def companions_brought(reader: Reader) -> list[str]:
    """Names of the files for other programs that an output of this checkpoint gets from beside it."""
    folder = reader.path if reader.path.is_dir() else reader.path.parent
    return containers.companion_names(folder) if reader.kind == "safetensors" else []


def write_checkpoint(
    checkpoint: Checkpoint,
    rebuilt: Rebuilt,
    record: Mapping[str, Any],
    out: Path,
    *,
    force: bool,
    shard_bytes: int | None = None,
    progress: Callable[[int], None] | None = None,
    resume: Path | None = None,
) -> containers.Receipt:
    """Write the reduced model with its description, atomically, and read back before it takes its place.

    Args:
        resume: a file that keeps account of finished shards, and of those of an interrupted run.

    Raises:
        OutputError: `out` is the input, exists (without force), or cannot be written.
    """
    config = checkpoint.family.for_sizes(checkpoint.family.rebuilt_config(checkpoint.config), rebuilt.sizes)
    config = checkpoint.without_idle(config)
    family = config.pop("family", checkpoint.family.name)
    config |= checkpoint.family.described([source.info.name for source in rebuilt.sources])
    metadata = dict(checkpoint.reader.metadata)
    hashing = checkpoint.hashing
    # a tensor that is copied is hashed on its way
    hashing.begin([source.info.name for source in rebuilt.sources if source.prove is not None])

    def described(sha256: str) -> dict[str, str]:
        text = description.to_json(family, config, {**record, "sha256": sha256})
        return {**metadata, containers.DESCRIPTION_KEY: text}

    companions = dict(containers.companions_of(checkpoint.folder)) if checkpoint.reader.kind == "safetensors" else {}
    companions.pop(containers.CONFIG, None)  # written for the new sizes
    if checkpoint.view.name is not None:
        metadata[containers.MODEL_KEY] = checkpoint.view.name
    return containers.write(
        out,
        rebuilt.sources,
        metadata=described(UNKNOWN),
        late=lambda: described(hashing.result()),
        extras=_with_shared(checkpoint, rebuilt, _recounted(checkpoint, rebuilt.sizes)),
        force=force,
        template=checkpoint.reader,
        shard_bytes=shard_bytes,
        companions=companions,
        progress=progress,
        config=config_text(checkpoint, rebuilt.sizes),
        resume=resume,
        identity=rebuilt.identity() if resume is not None else "",
    )


def _recounted(checkpoint: Checkpoint, sizes: Sequence[int]) -> dict[str, Any]:
    """The leaves that are no tensors, those that say how many states a layer has with the new number.

    equinox saves such a field of a module (`P`, `d_state`) beside the layer's arrays.
    """
    extras = checkpoint.resized_extras(max(sizes))
    new = {
        canonical(split(name)[0]): (layer.states, size)
        for layer, size in zip(checkpoint.layers, sizes)
        for name in layer.tensors.values()
    }
    for name, value in extras.items():
        path, _, leaf = canonical(name).rpartition("/")
        if path in new and leaf in _COUNTS and type(value) is int:
            before, size = new[path]
            # a conjugate pair is stored once and may be counted twice
            extras[name] = {before: size, 2 * before: 2 * size}.get(value, value)
    return extras


def _with_shared(checkpoint: Checkpoint, rebuilt: Rebuilt, extras: dict[str, Any]) -> dict[str, Any]:
    """The extras, with new tensors that have a second name among the shared ones."""
    there = checkpoint.reader.tensors
    new = [source.info.name for source in rebuilt.sources if source.info.name not in there]
    pairs = [[name, *again] for name in new if (again := checkpoint.second_names(name))]
    return containers.sharing(extras, pairs) if pairs and checkpoint.reader.shared else extras
