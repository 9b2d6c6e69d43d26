"""One forward pass over a split: the compiled program, the devices it runs on and the batches it is fed.

A pass runs on a mesh of devices with one axis, "batch": parameters and systems are on every device, the examples of a
batch are spread over them. One device is a mesh of one. The layers' systems are arguments of the program, so masked,
refitted and reduced models of one shape share it; it is kept for as long as the process uses the same model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from lastcli.engine.engines import engine_of
from lastcli.engine.protocol import System
from lastcli.errors import UsageError
from lastcli.evaluation.data import Batch, Batches, Split
from lastcli.evaluation.fitting import fit_split
from lastcli.families.base import Forward
from lastcli.parallel import devices, processes
from lastcli.parallel.heap import keep_freed_memory
from lastcli.parallel.threads import cores

__all__ = [
    "Runner",
    "choose_batch_size",
    "computable",
    "in_precision",
    "memory_errors",
    "model_outputs",
    "own_batches",
    "padded",
    "precision_of",
]

Systems = Sequence[System]

# One layer's activations of a batch. On a CPU they should stay in the cache: measured on S4D (784 steps, 128 channels)
# batches of 8 are five times as fast as batches of 16, on S5 (64 steps, 48 features) batches of 150 as those of 300.
CPU_BYTES = 3 << 20
ACCELERATOR_BYTES = 256 << 20
# One layer's activations of all batches that a CPU works on at a time.
SIDE_BY_SIDE_BYTES = 256 << 20
LARGEST_BATCH = 512
# A scan has a cost per step that a batch shares; long sequences are worth leaving the cache for.
SMALLEST_SCANNED = 8


def choose_batch_size(split: Split, systems: Systems, mesh: Mesh) -> int:
    """A batch whose activations fit the cache, cut so that the last one is padded as little as possible."""
    widest = max((system.width for system in systems), default=1)
    device_bytes = (CPU_BYTES if mesh.devices.flat[0].platform == "cpu" else ACCELERATOR_BYTES) * mesh.size
    most = max(device_bytes // (4 * split.steps * widest), 1 if any(s.multi for s in systems) else SMALLEST_SCANNED)
    batches = -(-split.n // min(most, LARGEST_BATCH))
    batches = -(-batches // processes.count()) * processes.count()  # none of the processes is to have one less
    return _whole_shares(-(-split.n // batches), mesh)


def _whole_shares(size: int, mesh: Mesh) -> int:
    return -(-size // mesh.size) * mesh.size


def in_precision(forward: Forward, systems: Systems) -> tuple[System, ...]:
    """One model's layers in the precision of its forward pass."""
    return tuple(engine_of(system).as_precision(system, np.dtype(forward.precision)) for system in systems)


def precision_of(forward: Forward) -> contextlib.AbstractContextManager[Any]:
    """The scope in which a model's arrays are placed and its programs run: JAX's 64-bit types for one in float64."""
    return jax.enable_x64(True) if forward.precision == "float64" else contextlib.nullcontext()


class Runner:
    """A model on its devices: parameters placed once, inputs placed batch by batch.

    Args:
        forward: the architecture.
        params: {tensor name: array}; floats go in as `forward.precision`, whatever they are stored in.
    """

    def __init__(self, forward: Forward, params: Mapping[str, np.ndarray]) -> None:
        self.forward = forward
        self.mesh = devices.local_mesh()
        if self.mesh.devices.flat[0].platform == "cpu":
            keep_freed_memory()
        self.replicated, self.spread = devices.shardings(self.mesh)
        self.params = self.everywhere(computable(forward, params))

    def at_once(self, size: int, split: Split, systems: Systems) -> int:
        """How many passes over batches of `size` run side by side: one to a core, where one CPU device has them all.

        Together their layers' activations stay within `SIDE_BY_SIDE_BYTES`, however many cores there are.
        """
        if self.mesh.size > 1 or processes.count() > 1 or self.mesh.devices.flat[0].platform != "cpu":
            return 1
        widest = max((system.width for system in systems), default=1)
        return max(min(cores(), SIDE_BY_SIDE_BYTES // (4 * size * split.steps * widest)), 1)

    def everywhere(self, tree: Any) -> Any:
        """Place arrays on every device."""
        with precision_of(self.forward):
            return jax.device_put(tree, self.replicated)

    def systems(self, systems: Systems) -> tuple[System, ...]:
        """Place one model's layers on every device, in the model's precision."""
        return self.everywhere(in_precision(self.forward, systems))

    def batch(self, batch: Batch) -> tuple[Any, Any, Any]:
        """Place (x, y, lengths) of a batch, spread over the devices."""
        return jax.device_put((batch.x, batch.y, batch.lengths), self.spread)

    def size(self, batch_size: int | None, split: Split, systems: Systems) -> int:
        """The batch size to use, a multiple of the number of devices."""
        if batch_size is None:
            return choose_batch_size(split, systems, self.mesh)
        if batch_size < 1:
            raise UsageError(f"The batch size must be at least 1, not {batch_size}.")
        return _whole_shares(min(batch_size, split.n), self.mesh)


def own_batches(batches: Batches) -> Iterator[tuple[int, Batch]]:
    """The batches of this process, with their numbers; all of them where there is one process."""
    for number in processes.share(range(len(batches))):
        yield number, batches.numbered(number)


def padded(batch: Batch, mesh: Mesh) -> Batch:
    """The batch with copies of its first example, of weight 0, behind it, so that every device has as many."""
    missing = _whole_shares(len(batch.x), mesh) - len(batch.x)
    if not missing:
        return batch

    def longer(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array, np.repeat(array[:1], missing, axis=0)])

    y, lengths = (None if array is None else longer(array) for array in (batch.y, batch.lengths))
    return Batch(longer(batch.x), y, lengths, np.concatenate([batch.weights, np.zeros(missing, np.float32)]))


def computable(forward: Forward, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters in the precision of the forward pass; whole numbers as they are."""
    real = np.dtype(forward.precision)

    def cast(array: np.ndarray) -> np.ndarray:
        array = np.asarray(array)
        if array.dtype.kind in "iub":
            return array
        return array.astype(np.result_type(real, np.complex64) if array.dtype.kind == "c" else real)

    return {name: cast(array) for name, array in params.items()}


@lru_cache(maxsize=16)
def _outputs_program(apply: Callable[..., Any], replicated: NamedSharding) -> Callable[..., Any]:
    return jax.jit(lambda params, systems, x, lengths: apply(params, systems, x, lengths)[0], out_shardings=replicated)


def model_outputs(
    forward: Forward,
    params: Mapping[str, np.ndarray],
    systems: Systems,
    split: Split,
    *,
    batch_size: int | None = None,
) -> Iterator[np.ndarray]:
    """The outputs of the model, one array a batch, padding removed; (k, classes), (k, p) or (k, L, p), in the
    model's precision.

    Raises:
        InputError: the split does not fit the model.
    """
    split = fit_split(split, forward, labels=False)
    runner = Runner(forward, params)
    program, placed = _outputs_program(forward.apply, runner.replicated), runner.systems(systems)
    batches = split.batches(runner.size(batch_size, split, systems))

    def outputs(number: int) -> np.ndarray | None:
        if number >= len(batches):
            return None
        batch = batches.numbered(number)
        with memory_errors():
            x, _, lengths = runner.batch(batch)
            with precision_of(forward):
                return np.asarray(program(runner.params, placed, x, lengths))[: batch.count]

    several = processes.count()
    for first in range(0, len(batches), several):
        mine = first + processes.index() if several > 1 else first
        for found in processes.together(partial(outputs, mine)):
            if found is not None:
                yield found


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Turn an allocation that failed into a sentence.

    Raises:
        UsageError: the device or the machine has not enough memory for the batch.
    """
    try:
        yield
    except MemoryError as error:
        raise UsageError("Not enough memory for this batch; take a smaller --batch-size.") from error
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error).lower():
            raise
        raise UsageError("The device has not enough memory for this batch; take a smaller --batch-size.") from error
