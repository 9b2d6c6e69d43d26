"""`Checkpoint`: an open file, the family that understands it, and its layers.

Nothing here decodes a weight until somebody asks: names, shapes and the description suffice for `last inspect`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli import containers
from lastcli.containers.base import Reader
from lastcli.engine.system import diagonal
from lastcli.errors import InputError, UnsupportedModelError
from lastcli.families.base import Decoding, Family, Forward, Layer
from lastcli.families.parts.cancellation import forward_precision
from lastcli.families.parts.quantised import scale_of
from lastcli.model.description import Description, Setting, inside_of
from lastcli.model.forwards import shared_forward
from lastcli.model.hyperparameters import Understood, understand
from lastcli.model.sidecar import unused_note
from lastcli.model.view import View

if TYPE_CHECKING:
    from lastcli.containers.hashing import InputHash
    from lastcli.engine.protocol import System

__all__ = ["Checkpoint"]


# Tensors of layers are kept as far as this goes; what comes after them is read again whenever somebody asks.
KEPT_BYTES = 2**25


class Checkpoint:
    """A trained model on disk, opened through its container and family.

    Attributes:
        path: the file or folder.
        label: how results name it; the path, or `bundled`.
        reader: the container's lazy tensors.
        family: the model family.
        settings: every option of the family with its value and source.
        layers: the state space layers in running order.
        provenance: what an earlier `last prune` wrote about this file, or an empty mapping.
        view: what of the file the family sees, and under which names.
        settled_task: what the labels of a split say the outputs are (`take_task`), or None.
    """

    def __init__(
        self,
        reader: Reader,
        family: Family,
        settings: Mapping[str, Setting],
        description: Description,
        view: View | None = None,
    ):
        self.path = reader.path
        self.label = str(reader.path)
        self.reader = reader
        self.view = view or View()
        self.family = self.view.over(family)
        self.settings = dict(settings)
        self.description = description
        self.provenance: Mapping[str, Any] = description.provenance
        self.layers: tuple[Layer, ...] = self.family.layers(reader.tensors, self.config)
        self._cache: dict[str, np.ndarray] = {}
        self._kept_bytes = 0
        self.settled_task: str | None = None
        self._finite: set[str] = set()

    @property
    def config(self) -> dict[str, Any]:
        """Option → value, without sources."""
        return {key: setting.value for key, setting in self.settings.items()}

    def without_idle(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A description without the options that say nothing about this checkpoint."""
        idle = {key for key, setting in self.settings.items() if setting.source == "idle"}
        return {key: value for key, value in config.items() if key not in idle}

    def resized_extras(self, states: int) -> dict[str, Any]:
        """The leaves that are no tensors, with the configuration inside the file for another state size."""
        extras, inside = dict(self.reader.extras), inside_of(self.reader.extras)
        if inside is not None and self.family.sized and self.family.upstream(inside[1]):
            path, document = inside
            numbers = {key: value for key, value in document.items() if type(value) is int}
            new = self.family.written_config(numbers, [states])
            extras |= {f"{path}/{key}": value for key, value in new.items() if key in numbers}
        return extras

    def check_sizes(self, sizes: Sequence[int]) -> None:
        """Refuse state counts that the program which wrote `config.json` cannot build a model of.

        Raises:
            UnsupportedModelError: layers differ, and the configuration has one size for all.
        """
        if self.description.upstream is not None and self.family.sized and len(set(sizes)) > 1:
            where, _ = self.description.upstream
            raise UnsupportedModelError(
                f"{where} gives every layer one state size, so layers of {min(sizes)} to {max(sizes)} states would not "
                "load there; use --layout uniform, or padded, which fills every layer up with inert states."
            )

    @property
    def folder(self) -> Path:
        """Where the tensors lie, and what other programs put beside them."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen, taken for one or left out when it was opened, one sentence each."""
        known = self.description.upstream
        unused = dict(self.description.beside.unused)
        if known is not None and self.family.upstream(known[1]):
            unused = {file: said for file, said in unused.items() if str(file) != known[0]}
        said = unused_note(unused, self.config)
        return (*self.reader.dropped, *self.view.aliases.notes, *([said] if said else []), *self.understood.notes)

    @cached_property
    def understood(self) -> Understood:
        """What the settings of the run in the file say of the model, and whether it was taken."""
        known = self.description.upstream
        if known is not None and not known[0].endswith("config.json") and self.family.upstream(known[1]):
            # the family reads them as a whole
            return Understood()
        proven = self.family.infer(self.reader.tensors)
        open_ = {key for key, setting in self.settings.items() if setting.source in ("file", "tensors", "assumed")}
        said = {key for _, _, mapping in self.description.layers for key in mapping}
        return understand(self.family, self.description.settings, {*self.settings} - open_ | said, proven)

    @property
    def states(self) -> int:
        """Stored states over all layers, as the tensors' shapes say."""
        return sum(layer.stored_states for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Stored elements over all tensors of the model (a complex number counts once, a tensor with two names too)."""
        return sum(info.size for name, info in self.reader.tensors.items() if name not in self.uncounted)

    @property
    def decoding(self) -> Decoding | None:
        """What a step of one sequence costs; None where the family's models are not run step by step."""
        return self.family.decoding(self.reader.tensors, self.config, self.layers)

    @property
    def state_tensors(self) -> set[str]:
        """Names of the tensors that belong to state space layers, second names included."""
        own = {name for layer in self.layers for name in layer.tensors.values()}
        return own | {again for name in own for again in self.second_names(name)}

    def second_names(self, name: str) -> list[str]:
        """Under which other names the file holds a tensor, or would hold a new one."""
        return self.view.aliases.of(name, self.reader.tensors)

    @property
    def uncounted(self) -> frozenset[str]:
        """Tensors of other models, and second names of the model's own."""
        return self.view.tensors_of_others | self.view.aliases.names.keys()

    def read(self, name: str) -> np.ndarray:
        """A tensor, decoded once and kept; of the layers' only as many as `KEPT_BYTES` hold.

        Only tensors of the layers and of the forward pass come here.

        Raises:
            UnsupportedModelError: it is quantised, so that its numbers are not the weights.
        """
        if name not in self._cache:
            info = self.reader.tensors.get(name)
            scale = None if info is None else scale_of(info, self.reader.tensors)
            if info is not None and scale is not None:
                raise UnsupportedModelError(
                    f"{self.path}: {name} is quantised ({info.dtype}, scaled by {scale}); last computes with weights "
                    "as they are, so write the checkpoint with dequantised weights first."
                )
            array = self.reader.read(name)
            if name in self._of_layers:
                if self._kept_bytes + array.nbytes > KEPT_BYTES:
                    return array
                self._kept_bytes += array.nbytes
            self._cache[name] = array
        return self._cache[name]

    @cached_property
    def _of_layers(self) -> frozenset[str]:
        return frozenset(self.state_tensors)

    @cached_property
    def systems(self) -> tuple[System, ...]:
        """One `System` a layer, float64.

        Raises:
            InputError: a layer has NaN or infinite values.
        """
        return tuple(map(self._system, self.layers))

    def _system(self, layer: Layer) -> System:
        for tensor in layer.tensors.values():
            if tensor in self.reader.tensors:
                self._refuse_non_finite(layer.name, tensor)
        return self.family.system(layer, self.config, self.read)

    def take_copies(self, other: Checkpoint, names: Collection[str]) -> None:
        """Tensors of these names are those of another checkpoint, byte for byte: what is known of them is known."""
        self._finite |= other._finite & set(names)

    def _refuse_non_finite(self, layer: str, tensor: str) -> None:
        if tensor in self._finite:
            return
        values = self.read(tensor)
        if values.dtype.kind in "iub":
            return
        wide = values if values.dtype.kind in "fc" else values.astype(np.float32)
        finite = np.isfinite(wide)
        if not finite.all():
            where = [int(i) for i in np.argwhere(~finite)[0]]
            raise InputError(
                f"{self.path}: layer {layer}: tensor {tensor} holds NaN or infinity (first at {where}); "
                "the training run diverged or the file is damaged."
            )
        self._finite.add(tensor)

    @cached_property
    def forward(self) -> Forward | None:
        """The family's published architecture over this file, or None where it is not known."""
        forward = shared_forward(self.family, self.reader.tensors, self.config, self.layers)
        if forward is not None and self.settled_task is not None:
            forward = dataclasses.replace(forward, task=self.settled_task)
        if forward is None or not self.family.diagonalises:
            return forward
        return dataclasses.replace(forward, precision=forward_precision(map(diagonal, self.systems)))

    def take_task(self, task: str) -> None:
        """What the outputs are, as the labels of a split show: the forward pass, and the description, follow."""
        self.settled_task = task
        setting = self.settings.get("task")
        if setting is not None and setting.source != "idle":
            self.settings["task"] = Setting(task, "data")
        self.__dict__.pop("forward", None)

    def require_forward(self) -> Forward:
        """`forward`, or an error that says what to do.

        Raises:
            UnsupportedModelError: the architecture around the layers is not known.
        """
        if self.forward is None:
            lack = self.family.lacks(self.reader.tensors, self.config, self.layers)
            if lack is not None:
                raise UnsupportedModelError(f"{self.path}: {lack}, or give your own with --forward module:function.")
            raise UnsupportedModelError(
                f"{self.path}: the state space layers are known ({self.family.name}), the model around them is not; "
                "give your own with --forward module:function."
            )
        return self.forward

    @cached_property
    def params(self) -> dict[str, np.ndarray]:
        """The tensors that the forward pass needs besides the layers' systems."""
        return {name: self.read(name) for name in self.require_forward().params}

    @property
    def sha256(self) -> str:
        """SHA-256 of the file; for a folder, of its files' paths and contents in sorted order.

        Of safetensors shards it is over their headers and the SHA-256 of their tensors (see
        `lastcli.containers.safetensors.shards_hash`).
        """
        return self.hashing.result()

    @cached_property
    def hashing(self) -> InputHash:
        """That digest being computed from now on, beside whatever else is done."""
        return containers.hashing_of(self.reader)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if "hashing" in self.__dict__:
            self.hashing.stop()
        self.reader.close()
