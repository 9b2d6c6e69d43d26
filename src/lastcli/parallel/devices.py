"""The devices of a run (`--devices`), as JAX meshes with one axis, "batch".

Passes over examples run on the local mesh of their process, and processes divide the batches among them. Only the
gradients of output matching are taken on the mesh of all processes, whose sums JAX makes itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.errors import UsageError
from lastcli.parallel import processes

if TYPE_CHECKING:
    from jax.sharding import Mesh, NamedSharding

__all__ = ["copies_of", "joint_mesh", "local_mesh", "rows_of", "shardings", "using"]

AXIS = "batch"
_ASKED: ContextVar[str] = ContextVar("devices", default="1")


@contextlib.contextmanager
def using(asked: str | None) -> Iterator[None]:
    """Inside, passes run on `asked` devices of each process: a number, "all", or None to leave it as it is."""
    token = _ASKED.set(_ASKED.get() if asked is None else asked)
    try:
        yield
    finally:
        _ASKED.reset(token)


def local_mesh() -> Mesh:
    """The devices of this process that were asked for; the first one unless `using` says otherwise.

    Raises:
        UsageError: there are not so many.
    """
    import jax
    from jax.sharding import Mesh

    found, asked = jax.local_devices(), _ASKED.get()
    count = len(found) if asked == "all" else int(asked)
    if count > len(found):
        has = "1 device" if len(found) == 1 else f"{len(found)} devices"
        raise UsageError(f"--devices {asked}: JAX finds {has} here ({found[0].platform}); ask for no more, or for all.")
    return Mesh(np.array(found[:count]), (AXIS,))


def joint_mesh() -> Mesh:
    """The devices of all processes, as many of each as of this one; the local mesh where there is one process.

    Raises:
        UsageError: there are not so many.
    """
    import jax
    from jax.sharding import Mesh

    local = local_mesh()
    if processes.count() == 1:
        return local
    by_process: dict[int, list[Any]] = {}
    for device in jax.devices():
        by_process.setdefault(device.process_index, []).append(device)
    if min(map(len, by_process.values())) < local.size:
        raise UsageError("The processes have different numbers of devices; ask for as many as each has with --devices.")
    return Mesh(np.array([by_process[index][: local.size] for index in sorted(by_process)]).reshape(-1), (AXIS,))


def shardings(mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
    """(the same on every device, the first axis spread over them)."""
    from jax.sharding import NamedSharding, PartitionSpec

    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(AXIS))


def rows_of(array: np.ndarray, spread: NamedSharding) -> Any:
    """An array that every process has, spread over the devices of a mesh; each process places its own rows only.

    The number of rows is a multiple of the number of devices.
    """
    import jax

    if spread.is_fully_addressable:
        return jax.device_put(array, spread)
    size = len(array) // processes.count()
    mine = array[processes.index() * size :][:size]
    return jax.make_array_from_process_local_data(spread, mine, array.shape)


def copies_of(tree: Any, replicated: NamedSharding) -> Any:
    """Arrays that every process has alike, placed on every device of a mesh."""
    import jax

    if replicated.is_fully_addressable:
        return jax.device_put(tree, replicated)

    def placed(array: Any) -> Any:
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, replicated, lambda index: array[index])

    return jax.tree.map(placed, tree)
