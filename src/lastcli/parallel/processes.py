"""The processes of one run, on JAX's own distributed runtime (`--distributed`).

Every process runs the same command on the same files. Work that can be divided is divided (`share`, `divided`), what
came of it is exchanged in the order of the processes, and from there on all know the same; only process 0 writes and
prints. Where nothing was started there is one process, and everything here costs nothing, not even an import.

A process that ends with an error says so through the runtime's key-value store, and the others end with its exit code.
One that dies without a word is missed by the runtime, which ends the others (`HEARTBEAT_SECONDS`).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from lastcli.errors import LastError, UsageError

__all__ = [
    "alone",
    "client",
    "count",
    "count_all",
    "divided",
    "exchange",
    "first_only",
    "index",
    "running",
    "share",
    "start",
    "together",
]

HEARTBEAT_SECONDS = 15
JOIN_SECONDS = 300
# Nobody waits longer for the others' part of the work; a process that died is noticed by its missing heartbeat.
_WAIT_MILLISECONDS = 30 * 86_400_000

T = TypeVar("T")
_ALONE: ContextVar[bool] = ContextVar("alone", default=False)
_PLACE: list[tuple[int, int]] = []
_ROUNDS = itertools.count()


def start(coordinator: str | None = None, count: int | None = None, index: int | None = None) -> None:
    """Join the other processes; what is None is found by JAX under Slurm, Open MPI and Kubernetes. Once is enough.

    Args:
        coordinator: HOST:PORT on which process 0 listens.
        count: how many processes there are.
        index: which one this is.

    Raises:
        UsageError: no cluster is found, the others do not come, or JAX has computed something already.
    """
    if _PLACE:
        return
    import jax

    # it would take SIGTERM away from whoever cleans up, to save a training that there is none of here
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            initialization_timeout=JOIN_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except ValueError as error:
        raise UsageError(
            f"--distributed: JAX finds no cluster here ({_first_line(error)}); say which processes there are with "
            "--coordinator HOST:PORT --num-processes N --process-id I."
        ) from error
    except RuntimeError as error:
        raise UsageError(f"The processes of the run do not come together: {_first_line(error)}.") from error
    _PLACE.append((jax.process_index(), jax.process_count()))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")[:300]


def running() -> bool:
    """Whether this run has several processes."""
    return bool(_PLACE) and _PLACE[0][1] > 1


def index() -> int:
    """Which process this is; 0 where there is one."""
    return _PLACE[0][0] if _PLACE else 0


def count() -> int:
    """How many processes divide the work at this moment; 1 inside `alone`."""
    return _PLACE[0][1] if _PLACE and not _ALONE.get() else 1


def count_all() -> int:
    """How many processes there are."""
    return _PLACE[0][1] if _PLACE else 1


def client() -> Any:
    """JAX's client of the coordination service. JAX shows it in no public name, Orbax uses this one."""
    from jax._src import distributed

    return distributed.global_state.client


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, this process does everything itself, on all examples: for work of which each process has other parts."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def share(items: Iterable[T]) -> Iterator[T]:
    """The items of this process: every `count`-th, beginning with its own number."""
    return itertools.islice(iter(items), index() if count() > 1 else 0, None, count())


def exchange(value: Any) -> list[Any]:
    """What every process gives here, in the order of the processes; all call it, and wait for the last one."""
    if count() == 1:
        return [value]
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather

    from lastcli.parallel.messages import decode, encode

    mine = np.frombuffer(encode(value), np.uint8)
    # the collective itself gives up on a process that computes for long
    client().wait_at_barrier(f"last/{next(_ROUNDS)}", _WAIT_MILLISECONDS)
    # as two int32: lengths may need more than one, and JAX knows no int64 by default
    sizes = np.asarray(process_allgather(np.array(divmod(len(mine), 2**30), np.int32))).astype(np.int64) @ [2**30, 1]
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(mine)] = mine
    rows = np.asarray(process_allgather(padded))
    return [decode(row[:size].tobytes()) for row, size in zip(rows, sizes)]


def together(function: Callable[[], T]) -> list[T]:
    """What `function` gives in every process, in their order; an error in one of them is raised in all."""
    if count() == 1:
        return [function()]
    mine: Any
    try:
        mine = function()
    except LastError as error:
        mine = error
    found = exchange(mine)
    for one in found:
        if isinstance(one, LastError):
            raise one
    return found


def divided(function: Callable[[Any], T], items: Sequence[Any], each: Callable[..., list[T]] | None = None) -> list[T]:
    """`function` of every item, each computed by one process; `each(function, items)` computes those of one process."""
    compute = each or (lambda function, items: [function(item) for item in items])
    if count() == 1:
        return compute(function, items)

    def own() -> dict[int, T]:
        with alone():
            return dict(zip(numbers, compute(function, [items[number] for number in numbers])))

    numbers = list(share(range(len(items))))
    found = {number: one for part in together(own) for number, one in part.items()}
    return [found[number] for number in range(len(items))]


def first_only(function: Callable[[], T]) -> T:
    """What `function` gives in process 0, the only one that calls it; all have its value, or raise its error."""
    if count() == 1:
        return function()
    return together(lambda: function() if index() == 0 else None)[0]  # type: ignore[return-value]
