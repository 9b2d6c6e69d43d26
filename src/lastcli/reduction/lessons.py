"""What reduced models are fitted on: minibatches and a held-back part, with what the original model answers to them.

The original is the teacher of every stage and of every ratio, and its answers are the dearest part of fitting a small
model. So minibatches are numbered: each is drawn from its own number, whoever asks, and its answers are remembered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import jax
import numpy as np

from lastcli import _version
from lastcli.engine.protocol import System
from lastcli.errors import InputError
from lastcli.evaluation.data import Batches
from lastcli.evaluation.passes import computable, in_precision, precision_of
from lastcli.families.base import Forward
from lastcli.parallel import devices
from lastcli.reduction.sequences import Sequences, divide, minibatch, source_of

__all__ = ["Lesson", "Lessons"]

Array = Any

_BATCH = 64
# Answers that are remembered, in bytes; what is more is computed again.
_REMEMBERED = 256 << 20


@dataclass(frozen=True, eq=False)
class Lesson:
    """Some sequences on the devices, those of weight 0 there only to make them even.

    Attributes:
        x, lengths: as the model's forward pass takes them.
        weights: (n, L) 0 where outputs do not count.
        wanted: the original model's outputs.
    """

    x: Array
    lengths: Array | None
    weights: Array
    wanted: Array


class Lessons:
    """The lessons of one model, its sequences spread over the devices of all processes.

    Args:
        forward: the architecture.
        params: {tensor name: array} of the tensors `forward` needs; they are not changed.
        teacher: the original layers.
        batches: inputs; labels are not looked at.
        held_back: share of the sequences that only decide what is returned; of fewer than five sequences with an
            output at every step, the share of the last steps.
        seed: of the minibatches, their splices and mixtures.
        description: what the architecture depends on besides the tensors, for `digest`.

    Raises:
        InputError: too few sequences, or too short ones, to hold any back.
    """

    def __init__(
        self,
        forward: Forward,
        params: Mapping[str, np.ndarray],
        teacher: Sequence[System],
        batches: Batches,
        *,
        held_back: float = 0.2,
        seed: int = 0,
        description: str = "",
    ):
        self.forward = forward
        self._batches, self._description = batches, description
        self.fit, self.held = divide(
            source_of(batches, pair=forward.layout != "single"), held_back, by_time=forward.sequence
        )
        step = forward.output_step
        if self.held.only is not None and not all(
            part.rows(np.arange(len(part))).weights[:, step - 1 :: step].any() for part in (self.fit, self.held)
        ):
            raise InputError(
                "Matching the output needs more to calibrate on: of fewer than five sequences the last steps are held "
                "back, and here none of them has an output."
            )
        self.seed = seed
        self.replicated, self.spread = devices.shardings(devices.joint_mesh())
        with precision_of(forward):
            self.params = devices.copies_of(computable(forward, params), self.replicated)
            self.teacher = devices.copies_of(in_precision(forward, teacher), self.replicated)
        self._answers: dict[tuple[str, int], Array] = {}
        self._bytes = 0

    @cached_property
    def digest(self) -> str:
        """The sha256 of all that a fit depends on besides the student: model, teacher, sequences and their division."""
        leaves, form = jax.tree.flatten((self.teacher, self.params))
        held = self.held
        what = (_version.__version__, self.forward.task, self._description, self.seed, held.late, held.only, form)
        found = hashlib.sha256(f"{what} {self._batches.split.digest()}".encode())
        for array in (*map(np.asarray, leaves), self.fit.index, held.index):
            found.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
        return found.hexdigest()

    def minibatch(self, number: int) -> Lesson:
        """A random minibatch; the same for everyone who asks for this number."""
        return self._lesson(("fit", number), self.drawn(number))

    def drawn(self, number: int) -> Sequences:
        """The sequences of that minibatch, before they are placed."""
        return minibatch(self.fit, _BATCH, np.random.default_rng((self.seed, number)))

    def examination(self) -> Iterator[Lesson]:
        """The held-back sequences."""
        for number, part in enumerate(self.held.parts(_BATCH)):
            yield self._lesson(("held", number), part)

    def _lesson(self, key: tuple[str, int], part: Sequences) -> Lesson:
        count = len(part.x)
        rows = np.arange(-(-count // self.spread.num_devices) * self.spread.num_devices) % count
        weights = part.weights[rows]
        weights[count:] = 0
        arrays = (part.x[rows], None if part.lengths is None else part.lengths[rows], weights)
        x, lengths, counted = (None if a is None else devices.rows_of(a, self.spread) for a in arrays)
        wanted = self._answers.get(key)
        if wanted is None:
            wanted = _answer(self.forward.apply, self.spread)(self.params, self.teacher, x, lengths)
            if self._bytes + wanted.nbytes <= _REMEMBERED:
                self._answers[key] = wanted
                self._bytes += wanted.nbytes
        return Lesson(x, lengths, counted, wanted)


@lru_cache(maxsize=8)
def _answer(apply: Callable[..., Any], spread: Any) -> Callable[..., Array]:
    return jax.jit(lambda params, systems, x, lengths: apply(params, systems, x, lengths)[0], out_shardings=spread)
