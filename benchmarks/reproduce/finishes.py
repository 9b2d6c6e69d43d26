"""What would be gained by fitting outputs further than `--refit match` does.

    python -m benchmarks.reproduce.finishes FOLDER... [--ratios 0.9] [--parts 16] [--iterations 60] [--inputs train]

Four fits from one start, the sequential refit of `obs`: Adam on the outputs (what `--refit match` does: the best of
three rates, with an early stop); L-BFGS behind it, on fixed minibatches; and Adam at the middle one of those rates on
the outputs and on what arrives at every layer, at two weights. The held-back sequences choose the iterate of each.
FOLDER is one trained classifier of `benchmarks.reproduce.run`. Prints a Markdown table as models are done: the
Kullback-Leibler divergence from the original on the fixed minibatches and on the held-back sequences, the points lost
on the test part, and seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

from benchmarks.machine import machine
from benchmarks.reproduce.aggregate import TRAINING
from benchmarks.reproduce.measure import model_options
from lastcli.engine.engines import engine_of
from lastcli.engine.protocol import Reduction, System
from lastcli.evaluation.data import Split
from lastcli.evaluation.passes import in_precision, model_outputs, precision_of
from lastcli.parallel import devices
from lastcli.plan import METHODS, REFITS, build_plan
from lastcli.reduction.compressor import Compressor
from lastcli.reduction.divergence import kullback_leibler
from lastcli.reduction.lessons import Lesson, Lessons
from lastcli.reduction.match_output import match_output
from lastcli.reduction.refits import MATCH_STEPS
from lastcli.verbs.shared.session import Session

__all__ = ["compared"]

RATE, LOOK = 1e-2, 25
WEIGHTS = (1.0, 0.1)


class Fitting:
    """One student of `lessons` and the fits of it; `parts` minibatches are those that L-BFGS looks at."""

    def __init__(self, lessons: Lessons, start: Sequence[System], parts: int, iterations: int):
        self.lessons, self.start, self.iterations = lessons, list(start), iterations
        with precision_of(lessons.forward):
            self.parts = [lessons.minibatch(number) for number in range(parts)]
        self._error = jax.jit(lambda systems, params, lesson: self._divergence(systems, params, Lesson(*lesson)))

    def error(self, systems: Sequence[System], lessons: Sequence[Lesson]) -> float:
        """The mean divergence of these systems over some lessons."""
        with precision_of(self.lessons.forward):
            placed = in_precision(self.lessons.forward, systems)
            sums = [self._error(placed, self.lessons.params, _arrays(lesson)) for lesson in lessons]
            return float(sum(total for total, _ in sums) / sum(weight for _, weight in sums))

    def held(self) -> list[Lesson]:
        """The held-back sequences."""
        with precision_of(self.lessons.forward):
            return list(self.lessons.examination())

    def first_order(self) -> list[System]:
        """As `--refit match` does it."""
        return match_output(self.lessons, self.start, steps=MATCH_STEPS)

    def second_order(self, begin: Sequence[System]) -> tuple[list[System], list[System]]:
        """L-BFGS (Liu and Nocedal, 1989) on the fixed minibatches: the held-back part's iterate, the last."""
        with precision_of(self.lessons.forward), jax.numpy_dtype_promotion("standard"):
            layers, zeros = self._variables(begin)
            flat, values_of = ravel_pytree(zeros)
            params = self.lessons.params

            def loss(point: Any, layers: Any, params: Any, lesson: Any) -> Any:
                total, weight = self._divergence(_systems(layers, values_of(point)), params, Lesson(*lesson))
                return total / weight

            both = jax.jit(jax.value_and_grad(loss))

            def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
                placed = jnp.asarray(point, flat.dtype)
                found = [both(placed, layers, params, _arrays(lesson)) for lesson in self.parts]
                value = float(np.mean([float(value) for value, _ in found]))
                return value, np.mean([np.asarray(gradient, np.float64) for _, gradient in found], axis=0)

            best = _Best(self, begin)
            ended = minimize(
                objective,
                np.zeros(flat.size),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": self.iterations, "maxcor": 20},
                callback=lambda point: best.look(layers, values_of(jnp.asarray(point, flat.dtype))),
            )
            last = _as_numpy(layers, values_of(jnp.asarray(ended.x, flat.dtype)))
        return best.systems, last

    def with_layers(self, weight: float) -> list[System]:
        """Adam on the divergence and `weight` times what arrives at every layer, relative to its own energy."""
        optimiser = optax.adam(optax.cosine_decay_schedule(RATE, MATCH_STEPS))
        apply = self.lessons.forward.apply

        def loss(values: Any, layers: Any, params: Any, teacher: Any, lesson: Lesson) -> Any:
            wanted, arriving = apply(params, teacher, lesson.x, lesson.lengths)
            got, reached = apply(params, _systems(layers, values), lesson.x, lesson.lengths)
            counted = lesson.weights[..., None]
            apart = [
                (counted * (one - other) ** 2).sum() / (counted * one**2).sum()
                for one, other in zip(arriving[1:], reached[1:])
            ]
            total, count = _sums(kullback_leibler(wanted, got), lesson)
            return total / count + weight * sum(apart) / max(len(apart), 1)

        def advance(values: Any, state: Any, layers: Any, params: Any, teacher: Any, lesson: Any) -> Any:
            gradient = jax.grad(loss)(values, layers, params, teacher, Lesson(*lesson))
            updates, state = optimiser.update(gradient, state)
            return optax.apply_updates(values, updates), state

        best = _Best(self, self.start)
        with precision_of(self.lessons.forward), jax.numpy_dtype_promotion("standard"):
            layers, values = self._variables(self.start)
            state, step = optimiser.init(values), jax.jit(advance)
            for number in range(MATCH_STEPS):
                lesson = _arrays(self.lessons.minibatch(number))
                values, state = step(values, state, layers, self.lessons.params, self.lessons.teacher, lesson)
                if (number + 1) % LOOK == 0:
                    best.look(layers, values)
        return best.systems

    def _variables(self, systems: Sequence[System]) -> tuple[Any, Any]:
        own = tuple(engine_of(system).variables(system) for system in systems)
        real = np.dtype(self.lessons.forward.precision)
        zeros = [{name: jnp.zeros(zero.shape, real) for name, zero in layer.start.items()} for layer in own]
        return devices.copies_of(own, self.lessons.replicated), zeros

    def _divergence(self, systems: Any, params: Any, lesson: Lesson) -> tuple[Any, Any]:
        got = self.lessons.forward.apply(params, systems, lesson.x, lesson.lengths)[0]
        return _sums(kullback_leibler(lesson.wanted, got), lesson)


class _Best:
    """The systems with the smallest divergence on the held-back sequences so far."""

    def __init__(self, fitting: Fitting, start: Sequence[System]):
        self._fitting, self._held = fitting, fitting.held()
        self.systems = list(start)
        self._error = fitting.error(start, self._held)

    def look(self, layers: Any, values: Any) -> None:
        """Keep the systems at these values if they are better."""
        found = _as_numpy(layers, values)
        error = self._fitting.error(found, self._held)
        if error < self._error:
            self.systems, self._error = found, error


def _sums(divergences: Any, lesson: Lesson) -> tuple[Any, Any]:
    """The sum over the sequences that count, and how many there are."""
    weights = lesson.weights.max(axis=1)
    return (weights * divergences).sum(), weights.sum()


def _systems(layers: Any, values: Any) -> tuple[Any, ...]:
    return tuple(layer.system(value) for layer, value in zip(layers, values))


def _as_numpy(layers: Any, values: Any) -> list[System]:
    return [jax.tree.map(np.asarray, system) for system in _systems(layers, values)]


def _arrays(lesson: Lesson) -> tuple[Any, ...]:
    return lesson.x, lesson.lengths, lesson.weights, lesson.wanted


def compared(folder: Path, options: argparse.Namespace) -> list[list[str]]:
    """The lines of one trained model: task, seed, ratio, fit, divergences, points lost and seconds."""
    training = json.loads((folder / "training.json").read_text())
    given = model_options(folder, training, options.inputs)
    plan = build_plan({"checkpoint": folder / "model.safetensors", **given}, None)
    found = []
    with Session(plan) as session:
        pair = METHODS["obs"], REFITS["sequential"]
        compressor, split = session.compressor([pair]), session.examples.split
        lessons = compressor.lessons
        right = _correct(compressor, compressor.systems, split)
        for ratio in options.ratios.split(","):
            reductions = compressor.reduce(*pair, ratio=Decimal(ratio))
            fitting = Fitting(lessons, [one.system for one in reductions], options.parts, options.iterations)
            for name, systems, seconds in _fits(fitting):
                lost = 100 * (right - _correct(compressor, _embedded(compressor, reductions, systems), split))
                errors = [fitting.error(systems, lessons) for lessons in (fitting.parts, fitting.held())]
                cells = [training["task"], str(training["seed"]), f"{float(ratio):.0%}", name]
                found.append([*cells, *(f"{error:.4f}" for error in errors), f"{lost:.1f}", f"{seconds:.0f}"])
    return found


def _fits(fitting: Fitting) -> Iterator[tuple[str, list[System], float]]:
    """What each fit ends at, and its seconds; of L-BFGS those behind Adam's."""
    yield "none: sequential", fitting.start, 0.0
    matched, seconds = _timed(fitting.first_order)
    yield "Adam (`match`)", matched, seconds
    (best, last), seconds = _timed(lambda: fitting.second_order(matched))
    yield "Adam, then L-BFGS", best, seconds
    yield "its last iterate", last, seconds
    for weight in WEIGHTS:
        found, seconds = _timed(partial(fitting.with_layers, weight))
        yield f"Adam, layers too, weight {weight:g}", found, seconds


def _timed(fit: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    found = fit()
    return found, time.perf_counter() - begin


def _embedded(compressor: Compressor, reductions: Sequence[Reduction], systems: Sequence[System]) -> list[System]:
    return [
        engine_of(whole).embed(whole, replace(reduction, system=system))
        for whole, reduction, system in zip(compressor.systems, reductions, systems)
    ]


def _correct(compressor: Compressor, systems: Sequence[System], split: Split) -> float:
    model = compressor.checkpoint
    outputs = np.concatenate(list(model_outputs(model.require_forward(), model.params, systems, split)))
    return float((outputs.argmax(axis=-1) == split.y).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--ratios", default="0.9")
    parser.add_argument("--parts", type=int, default=16, help="fixed minibatches of 64 that L-BFGS sees")
    parser.add_argument("--iterations", type=int, default=60, help="of L-BFGS, at most")
    parser.add_argument(
        "--inputs", choices=(TRAINING, "calibration"), default=TRAINING, help="whose inputs are matched"
    )
    options = parser.parse_args()
    header = ["task", "seed", "removed", "fitted by", "fixed minibatches", "held back", "points lost", "s"]
    print("| " + " | ".join(header) + " |", "|---" * len(header) + "|", sep="\n", flush=True)
    for folder in options.folders:
        for row in compared(folder, options):
            print("| " + " | ".join(row) + " |", flush=True)
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
