"""The training loop: many steps in one compiled program, on any device, resumable after every chunk of epochs."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import serialization

from benchmarks.reproduce.initialisation import initial_variables
from benchmarks.reproduce.optimiser import optimiser
from benchmarks.reproduce.settings import Recipe, Setting
from benchmarks.reproduce.splits import Part, Splits
from lastcli.families.s5.model import S5Model

__all__ = ["Trainer", "evaluate"]

Tree = dict[str, Any]
# Steps of one compiled scan: long enough to hide the dispatch, short enough to report and to resume.
CHUNK = 200


@dataclass
class Trainer:
    """Trains one setting on one task with one seed.

    Attributes:
        folder: where `state.msgpack` is kept while training runs, or None for no resuming.
        report: called with one line of text now and then.
    """

    setting: Setting
    splits: Splits
    seed: int
    folder: Path | None = None
    report: Callable[[str], None] = print

    def __post_init__(self) -> None:
        self.model = module(self.setting, self.splits)
        self.steps_per_epoch = max(1, len(self.splits.train) // self.setting.recipe.batch)
        self.transform = optimiser(self.setting.recipe, self.steps_per_epoch)
        self.run_chunk = _compiled_chunk(
            self.model, self.setting.recipe, self.steps_per_epoch, self.splits.task, self.splits.warmup
        )

    @property
    def total_steps(self) -> int:
        """Gradient steps of the whole training."""
        return self.setting.recipe.epochs * self.steps_per_epoch

    def initial_state(self) -> Tree:
        """Parameters, batch statistics and optimiser state before the first step."""
        variables = initial_variables(self.setting.model, self.splits.features, self.splits.outputs, self.seed)
        variables = jax.tree.map(jnp.asarray, variables)
        return {
            "params": variables["params"],
            "batch_stats": variables.get("batch_stats", {}),
            "optimiser": self.transform.init(variables["params"]),
            "step": 0,
        }

    def train(self, stop_after: int | None = None) -> Tree:
        """Run to the end (or to `stop_after` steps), resuming where an earlier run stopped; returns the variables."""
        state = self._restored(self.initial_state())
        train = self.splits.train
        data = (
            jnp.asarray(train.x),
            jnp.asarray(train.y),
            None if train.lengths is None else jnp.asarray(train.lengths),
        )
        scale = jnp.float32(1.0 if train.scale is None else train.scale)
        end = self.total_steps if stop_after is None else min(stop_after, self.total_steps)
        started, first = time.perf_counter(), state["step"]
        while state["step"] < end:
            rows = self._rows(state["step"], min(CHUNK, end - state["step"]))
            key = jax.random.fold_in(jax.random.key(self.seed), state["step"])
            carry = (state["params"], state["batch_stats"], state["optimiser"])
            carry, losses = self.run_chunk(carry, data, scale, jnp.asarray(rows), key)
            state = dict(zip(("params", "batch_stats", "optimiser"), carry), step=state["step"] + len(rows))
            losses = np.asarray(losses)
            if not np.isfinite(losses).all():
                raise FloatingPointError(f"Training of {self.splits.name} diverged before step {state['step']}.")
            rate = (state["step"] - first) / (time.perf_counter() - started)
            self.report(
                f"{self.splits.name} step {state['step']}/{self.total_steps} loss {losses.mean():.4f} {rate:.1f}/s"
            )
            self._keep(state)
        return {name: state[name] for name in ("params", "batch_stats") if state[name]}

    def _rows(self, step: int, count: int) -> np.ndarray:
        """Examples of the next `count` batches, (count, batch). An epoch's order depends on seed and epoch alone."""
        batch = min(self.setting.recipe.batch, len(self.splits.train))
        rows = []
        for index in range(step, step + count):
            epoch, place = divmod(index, self.steps_per_epoch)
            order = _order(len(self.splits.train), self.seed, epoch)
            rows.append(order[place * batch : (place + 1) * batch])
        return np.stack(rows)

    def _stamp(self) -> str:
        """What a kept state must agree with to be taken up again."""
        return json.dumps([asdict(self.setting), self.splits.fingerprint(), self.seed], sort_keys=True)

    def _restored(self, state: Tree) -> Tree:
        if self.folder is None or not (self.folder / "state.msgpack").exists():
            return state
        if (self.folder / "state.json").read_text() != self._stamp():
            return state
        restored: Tree = serialization.from_bytes(state, (self.folder / "state.msgpack").read_bytes())
        self.report(f"{self.splits.name}: resuming at step {restored['step']}")
        return restored

    def _keep(self, state: Tree) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "state.json").write_text(self._stamp())
        fresh = self.folder / "state.msgpack.new"
        fresh.write_bytes(serialization.to_bytes(state))
        fresh.replace(self.folder / "state.msgpack")


def module(setting: Setting, splits: Splits) -> S5Model:
    """The flax module of a setting."""
    model = setting.model
    return S5Model(
        features=splits.features,
        d_output=splits.outputs,
        d_model=model.d_model,
        ssm_sizes=(model.stored,) * model.layers,
        task=splits.task,
        padded=splits.padded,
        dropout=setting.recipe.dropout,
        bn_momentum=setting.recipe.bn_momentum,
        **model.options(),
    )


def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([count, seed, epoch]).permutation(count)


@functools.cache
def _compiled_chunk(model: S5Model, recipe: Recipe, steps_per_epoch: int, task: str, warmup: int) -> Callable[..., Any]:
    """(carry, data, scale, rows, key) -> (carry, losses): one compiled scan over the batches in `rows`."""
    transform = optimiser(recipe, steps_per_epoch)

    def loss_of(params: Tree, statistics: Tree, x: jax.Array, y: jax.Array, lengths: Any, key: jax.Array) -> Any:
        variables = {"params": params, **({"batch_stats": statistics} if statistics else {})}
        output, changed = model.apply(variables, x, lengths, train=True, rngs={"dropout": key}, mutable=["batch_stats"])
        return loss(output, y, task, warmup), changed.get("batch_stats", {})

    def step(carry: Any, this: Any, data: Any, scale: jax.Array) -> Any:
        params, statistics, kept = carry
        rows, key = this
        x, y, lengths = (None if part is None else part[rows] for part in data)
        x = x if x.ndim == 2 else x.astype(jnp.float32) * scale
        (value, statistics), gradient = jax.value_and_grad(loss_of, has_aux=True)(
            params, statistics, x, y, lengths, key
        )
        updates, kept = transform.update(gradient, kept, params)
        return (optax.apply_updates(params, updates), statistics, kept), value

    @jax.jit
    def chunk(carry: Any, data: Any, scale: jax.Array, rows: jax.Array, key: jax.Array) -> Any:
        keys = jax.random.split(key, len(rows))
        return jax.lax.scan(lambda carry, this: step(carry, this, data, scale), carry, (rows, keys))

    return chunk


def loss(output: jax.Array, y: jax.Array, task: str, warmup: int) -> jax.Array:
    """Cross entropy of log-probabilities, or the mean squared error after the warm-up steps."""
    if task == "regression":
        return jnp.mean((output - y)[:, warmup:] ** 2)
    return -jnp.mean(jnp.take_along_axis(output, y[:, None].astype(jnp.int32), axis=1))


def evaluate(setting: Setting, splits: Splits, variables: Tree, name: str, batch: int = 250) -> float:
    """Accuracy, or mean squared error, on one part."""
    part = splits.part(name)
    apply = _compiled_apply(module(setting, splits))
    total = 0.0
    for piece in _batches(part, batch):
        output = np.asarray(apply(variables, piece.inputs(), piece.lengths))
        if splits.task == "regression":
            total += float(np.mean((output - piece.y)[:, splits.warmup :] ** 2)) * len(piece)
        else:
            total += float(np.sum(output.argmax(-1) == piece.y))
    return total / len(part)


@functools.cache
def _compiled_apply(model: S5Model) -> Callable[..., Any]:
    return jax.jit(model.apply)


def _batches(part: Part, size: int) -> Iterator[Part]:
    for start in range(0, len(part), size):
        yield part.take(np.arange(start, min(start + size, len(part))))
