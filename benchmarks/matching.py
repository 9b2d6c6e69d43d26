"""What matching outputs gains by a second-order finish, and by the layers' own signals as further targets.

    python -m benchmarks.matching [--checkpoint FILE --calibration FILE.npz --data FILE.npz] [--ratios 0.8,0.9]

Without options on the bundled model. Every variant begins at the same sequential refit of obs; the held-back error that
decides is the same for all. Prints a Markdown table: Kullback-Leibler divergence from the original on the held-back
sequences, points lost on the labelled data, and seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.machine import machine
from lastcli.engine.engines import engine_of
from lastcli.engine.protocol import System
from lastcli.evaluation.data import Split
from lastcli.evaluation.passes import in_precision, model_outputs
from lastcli.parallel import devices
from lastcli.plan import METHODS, REFITS, build_plan
from lastcli.reduction.compressor import Compressor
from lastcli.reduction.divergence import kullback_leibler
from lastcli.reduction.lessons import Lesson, Lessons
from lastcli.reduction.match_output import match_output
from lastcli.reduction.refits import MATCH_STEPS
from lastcli.verbs.shared.session import Session

Values = Any

# Minibatches of 64 that a second-order search sees at once, its iterations, and every how many of them it looks up.
_FIXED, _ITERATIONS, _LOOK = 12, 100, 10
_RATE = 1e-2


def compare(checkpoint: str, calibration: str, data: str, ratios: Sequence[str]) -> list[str]:
    """Lines of Markdown: a row a variant and ratio."""
    lines = ["| removed | fitted by | held-back divergence | points lost | s |", "|--:|---|--:|--:|--:|"]
    plan = build_plan({"checkpoint": checkpoint, "data": data, "calibration": calibration}, None)
    with Session(plan) as session:
        pair = METHODS["obs"], REFITS["sequential"]
        compressor = session.compressor([pair])
        lessons, split = compressor.lessons, session.split
        right = _correct(lessons, compressor.systems, split)
        for ratio in ratios:
            reductions = compressor.reduce(*pair, ratio=Decimal(ratio))
            start = [reduction.system for reduction in reductions]
            for name, fit in _VARIANTS.items():
                begin = time.perf_counter()
                found = fit(lessons, start)
                seconds = time.perf_counter() - begin
                lost = 100 * (right - _correct(lessons, _embedded(compressor, reductions, found), split))
                error = _held_error(lessons, found)
                lines.append(f"| {float(ratio):.0%} | {name} | {error:.4f} | {lost:.1f} | {seconds:.0f} |")
    return lines


def _embedded(compressor: Compressor, reductions: Sequence[Any], systems: Sequence[System]) -> list[System]:
    return [
        engine_of(whole).embed(whole, replace(reduction, system=system))
        for whole, reduction, system in zip(compressor.systems, reductions, systems)
    ]


def _correct(lessons: Lessons, systems: Sequence[System], split: Split) -> float:
    outputs = np.concatenate(list(model_outputs(lessons.forward, lessons.params, systems, split)))
    return float((outputs.argmax(axis=-1) == split.y).mean())


def _divergence(lessons: Lessons, systems: Any, lesson: Lesson) -> Any:
    got = lessons.forward.apply(lessons.params, systems, lesson.x, lesson.lengths)[0]
    weights = lesson.weights.max(axis=1)
    return (weights * kullback_leibler(lesson.wanted, got)).sum() / weights.sum()


def _held_error(lessons: Lessons, systems: Sequence[System]) -> float:
    """Mean over the held-back parts; compiled once for reductions of one shape."""
    if "held" not in lessons.programs:
        lessons.programs["held"] = jax.jit(lambda systems, arrays: _divergence(lessons, systems, Lesson(*arrays)))
    program, placed = lessons.programs["held"], in_precision(lessons.forward, systems)
    return float(np.mean([program(placed, _arrays(lesson)) for lesson in lessons.examination()]))


def _arrays(lesson: Lesson) -> tuple[Any, ...]:
    return lesson.x, lesson.lengths, lesson.weights, lesson.wanted


def first_order(lessons: Lessons, start: Sequence[System]) -> list[System]:
    """As `--refit match` does it."""
    return match_output(lessons, start, steps=MATCH_STEPS)


def second_order(lessons: Lessons, start: Sequence[System]) -> list[System]:
    """The same, and behind it L-BFGS (Liu and Nocedal, 1989) on fixed minibatches."""
    matched = first_order(lessons, start)
    optimiser = optax.lbfgs()
    parts = [lessons.minibatch(number) for number in range(_FIXED)]

    def objective(layers: Any, values: Values) -> Any:
        return sum(_divergence(lessons, _systems(layers, values), part) for part in parts) / len(parts)

    def advance(layers: Any, values: Values, state: Any) -> Any:
        of = partial(objective, layers)
        value, gradient = optax.value_and_grad_from_state(of)(values, state=state)
        updates, state = optimiser.update(gradient, state, values, value=value, grad=gradient, value_fn=of)
        return optax.apply_updates(values, updates), state

    return _search(lessons, matched, optimiser, advance, _ITERATIONS, _LOOK)


def with_layers(lessons: Lessons, start: Sequence[System]) -> list[System]:
    """Adam on the divergence and on what arrives at every layer, each relative to its own energy."""
    optimiser = optax.adam(optax.cosine_decay_schedule(_RATE, MATCH_STEPS))
    forward, params = lessons.forward, lessons.params

    def loss(layers: Any, values: Values, lesson: Lesson) -> Any:
        wanted, arriving = forward.apply(params, lessons.teacher, lesson.x, lesson.lengths)
        got, reached = forward.apply(params, _systems(layers, values), lesson.x, lesson.lengths)
        weights = lesson.weights[..., None]
        apart = [
            (weights * (one - other) ** 2).sum() / (weights * one**2).sum()
            for one, other in zip(arriving[1:], reached[1:])
        ]
        each = lesson.weights.max(axis=1)
        return (each * kullback_leibler(wanted, got)).sum() / each.sum() + sum(apart) / max(len(apart), 1)

    def advance(layers: Any, values: Values, state: Any, arrays: Any) -> Any:
        gradient = jax.grad(partial(loss, layers))(values, Lesson(*arrays))
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(values, updates), state

    numbers = iter(range(MATCH_STEPS))
    jitted = jax.jit(advance)

    def step(layers: Any, values: Values, state: Any) -> Any:
        lesson = lessons.minibatch(next(numbers))
        return jitted(layers, values, state, _arrays(lesson))

    return _search(lessons, start, optimiser, step, MATCH_STEPS, 25, compiled=False)


def _systems(layers: Any, values: Values) -> tuple[Any, ...]:
    return tuple(layer.system(value) for layer, value in zip(layers, values))


def _search(
    lessons: Lessons,
    start: Sequence[System],
    optimiser: Any,
    advance: Callable[..., Any],
    steps: int,
    look: int,
    compiled: bool = True,
) -> list[System]:
    own = [engine_of(system).variables(system) for system in start]
    layers = devices.copies_of(tuple(own), lessons.replicated)
    values: Values = [{name: jnp.zeros(zero.shape, jnp.float32) for name, zero in layer.start.items()} for layer in own]
    state, step = optimiser.init(values), jax.jit(advance) if compiled else advance
    best, best_error = list(start), _held_error(lessons, start)
    with jax.numpy_dtype_promotion("standard"):
        for done in range(1, steps + 1):
            values, state = step(layers, values, state)
            if done % look:
                continue
            found = [jax.tree.map(np.asarray, system) for system in _systems(layers, values)]
            error = _held_error(lessons, found)
            if error < best_error:
                best, best_error = found, error
    return best


_VARIANTS: dict[str, Callable[[Lessons, Sequence[System]], list[System]]] = {
    "nothing more": lambda _, start: list(start),
    "Adam (`--refit match`)": first_order,
    "Adam, then L-BFGS": second_order,
    "Adam, layers as targets too": with_layers,
}


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="bundled")
    parser.add_argument("--calibration", default="bundled:calibration")
    parser.add_argument("--data", default="bundled:test")
    parser.add_argument("--ratios", default="0.8,0.9")
    options = parser.parse_args()
    print("\n".join(compare(options.checkpoint, options.calibration, options.data, options.ratios.split(","))))
    print(f"\nobs, from its sequential refit on. {machine()}")


if __name__ == "__main__":
    main()
