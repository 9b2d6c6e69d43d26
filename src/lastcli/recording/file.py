"""The file of recorded layer inputs: a `.safetensors` whose metadata say what is in it.

For layer i of the list in the metadata (key `last.layer_inputs`, JSON, `"schema": "last.layer-inputs/1"`)::

    moments.i.features …   the seven fields of `engine.moments.Moments`, float64
    system.i.poles, B, C, D   the layer whose states these are of, float64, complex as a last axis of two
    sample.i.u (n, L, H), sample.i.weights (n, L)   the sample, where there is one

Every tensor carries its sha256 like those of any file that `last` writes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lastcli import containers
from lastcli._version import __version__
from lastcli.containers import Reader, TensorSource
from lastcli.engine.moments import Moments, empty_moments
from lastcli.engine.system import DiagonalSystem, diagonal
from lastcli.errors import InputError, OutputError
from lastcli.mappings import parse_mapping
from lastcli.model.checkpoint import Checkpoint
from lastcli.recording.arrays import layer_width
from lastcli.recording.names import plain
from lastcli.reduction.recorded import LayerInputs

__all__ = ["KEY", "SCHEMA", "Recorded", "read_layer_inputs", "write_layer_inputs"]

KEY = "last.layer_inputs"
SCHEMA = "last.layer-inputs/1"
_FIELDS = tuple(field.name for field in dataclasses.fields(Moments))
_PARTS = ("poles", "B", "C", "D")
# One layer from one file, read by another processor.
_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class Recorded:
    """One layer of a recording.

    Attributes:
        name, system, moments: of the layer.
        sample: u (n, L, H) and weights (n, L), or None.
        sequences: how many were recorded.
    """

    name: str
    system: DiagonalSystem
    moments: Moments
    sample: tuple[np.ndarray, np.ndarray] | None
    sequences: int


def write_layer_inputs(
    path: Path, layers: Sequence[Recorded], *, checkpoint: str, padded_backwards: bool, force: bool
) -> None:
    """Write what was recorded.

    Args:
        checkpoint: the file name of the model, for people.
        padded_backwards: whether padding was counted, since a layer reads backwards.
        force: replace what is there.

    Raises:
        OutputError: another suffix than .safetensors, or it cannot be written there.
    """
    if path.suffix.lower() != ".safetensors":
        raise OutputError(f"{path}: recorded layer inputs go into a .safetensors file.")
    sources, said = [], []
    for i, layer in enumerate(layers):
        arrays = {f"moments.{i}.{field}": np.asarray(getattr(layer.moments, field), np.float64) for field in _FIELDS}
        arrays |= {f"system.{i}.{part}": value for part, value in _values(layer.system).items()}
        if layer.sample is not None:
            arrays |= {f"sample.{i}.u": layer.sample[0], f"sample.{i}.weights": layer.sample[1]}
        sources += [TensorSource.of(key, np.asarray(array, order="C")) for key, array in arrays.items()]
        steps = float(layer.moments.weight)
        said.append({"name": layer.name, "sequences": layer.sequences, "steps": steps, "delay": layer.system.delay})
    about = {
        "schema": SCHEMA,
        "version": __version__,
        "checkpoint": checkpoint,
        "padded_backwards": padded_backwards,
        "layers": said,
    }
    containers.write(path, sources, metadata={KEY: json.dumps(about)}, force=force)


def read_layer_inputs(path: Path, checkpoint: Checkpoint) -> LayerInputs:
    """What was recorded of a checkpoint's layers.

    Raises:
        InputError: the file is damaged or no such file, or was recorded on other layers than the checkpoint has.
    """
    with containers.open_reader(path) as reader:
        if KEY not in reader.metadata:
            raise InputError(f"{path} holds no recorded layer inputs; lastcli.capture writes them (docs/capture.md).")
        about = parse_mapping(reader.metadata[KEY], f"{path}: metadata {KEY}", is_json=True)
        places = _places(path, about)
        wanted = [plain(layer.name) for layer in checkpoint.layers]
        missing = [layer.name for layer, key in zip(checkpoint.layers, wanted) if key not in places]
        if missing or len(places) != len(wanted):
            other = f"no {missing[0]!r}" if missing else f"{len(places)} layers, the checkpoint {len(wanted)}"
            raise InputError(f"{path} has {other}: it was recorded on another model than {checkpoint.label}.")
        moments, sequences = [], []
        for layer, key, system in zip(checkpoint.layers, wanted, map(diagonal, checkpoint.systems)):
            where = f"{path}: layer {layer.name}"
            i, entry = places[key]
            _require_same(reader, i, system, where, checkpoint.label)
            if entry.get("delay") != system.delay:
                raise InputError(f"{where} was recorded with another delay than the checkpoint has; record it again.")
            moments.append(_moments(reader, i, system, where))
            sequences.append(_sample(reader, i, system, where))
    return LayerInputs(str(path), tuple(moments), tuple(sequences), bool(about.get("padded_backwards")))


def _places(path: Path, about: Mapping[str, Any]) -> dict[str, tuple[int, Mapping[str, Any]]]:
    if about.get("schema") != SCHEMA:
        raise InputError(f"{path} is of the schema {about.get('schema')!r}; this version of last reads {SCHEMA}.")
    layers = about.get("layers")
    if not isinstance(layers, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in layers
    ):
        raise InputError(f"{path}: its list of layers is damaged; record again.")
    return {plain(one["name"]): (i, one) for i, one in enumerate(layers)}


def _values(system: DiagonalSystem) -> dict[str, np.ndarray]:
    """The arrays that a layer's states depend on, and its read-out, real."""
    arrays = {part: np.asarray(getattr(system, part)) for part in _PARTS if getattr(system, part) is not None}
    return {
        part: np.stack([array.real, array.imag], axis=-1) if np.iscomplexobj(array) else array.astype(np.float64)
        for part, array in arrays.items()
    }


def _require_same(reader: Reader, i: int, system: DiagonalSystem, where: str, label: str) -> None:
    for part, array in _values(system).items():
        key = f"system.{i}.{part}"
        there = reader.read(key) if key in reader.tensors else None
        if there is None or there.shape != array.shape:
            found = "none" if there is None else there.shape
            raise InputError(
                f"{where} was recorded with {part} of shape {found}, and {label} has {array.shape}; "
                "it is another model's."
            )
        if not np.abs(there - array).max(initial=0.0) <= _SAME * max(float(np.abs(array).max(initial=0.0)), 1e-30):
            raise InputError(
                f"{where}: {part} is not that of {label}, so it was recorded on another checkpoint, or on one "
                "that was described otherwise; record it again."
            )


def _moments(reader: Reader, i: int, system: DiagonalSystem, where: str) -> Moments:
    found = {}
    for field, zero in vars(empty_moments(system)).items():
        key = f"moments.{i}.{field}"
        array = reader.read(key) if key in reader.tensors else None
        if array is None or array.shape != zero.shape or not np.isfinite(array).all():
            raise InputError(f"{where}: its moments ({field}) are missing or damaged; record again.")
        found[field] = array.astype(np.float64)
    if not found["weight"] > 0:
        raise InputError(f"{where}: nothing was recorded of it.")
    return Moments(**found)


def _sample(reader: Reader, i: int, system: DiagonalSystem, where: str) -> tuple[np.ndarray, np.ndarray] | None:
    names = (f"sample.{i}.u", f"sample.{i}.weights")
    if names[0] not in reader.tensors:
        return None
    shape = reader.tensors[names[0]].shape
    weights = reader.tensors.get(names[1])
    if len(shape) != 3 or shape[2] != layer_width(system) or weights is None or weights.shape != shape[:2]:
        raise InputError(f"{where}: its sample of sequences is damaged; record again.")
    return reader.read(names[0]), reader.read(names[1])
