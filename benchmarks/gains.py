"""What a pruned model gains in time against what it could gain, at the published sizes.

    python -m benchmarks.gains [--size small|large|both|tiny] [--ratio 0.5] [--layout ragged] [--examples N]

Models of random weights (the sizes of benchmarks/speed.py), pruned by `last`, both measured in turns. If the time of
the state space layers fell with the multiply-adds of their states and everything else stayed, the layers would be
`ideal` times as fast, and the model T / (T - S + S / ideal), with T its time and S that of its layers alone, run one
after the other on inputs of their size. Step by step, where a model can be, the ideal is the ratio of all
multiply-adds.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import lastcli
from benchmarks.machine import machine
from benchmarks.speed import SIZES, Contest, Size
from lastcli.engine.simulate import simulate
from lastcli.evaluation.bench import Contender, time_models
from lastcli.evaluation.data import Split
from lastcli.evaluation.passes import in_precision
from lastcli.evaluation.steps import calls_for
from lastcli.verbs.shared.shares import Work, step_work

__all__ = ["gains", "main"]

ALL = {**SIZES, "tiny": Size(layers=2, features=16, states=8, length=64, examples=4, batch=4)}


def gains(size: Size, *, ratio: float, layout: str, repeats: int) -> dict[str, Any]:
    """Every figure of one size."""
    with tempfile.TemporaryDirectory() as folder:
        contest, out = Contest(size, Path(folder)), Path(folder) / "pruned.safetensors"
        lastcli.prune(contest.checkpoint, out, method="last", ratio=ratio, layout=layout)
        with lastcli.open(contest.checkpoint) as original, lastcli.open(out) as pruned:
            models = (original, pruned)
            contenders = [Contender(model.require_forward(), model.params, model.systems) for model in models]
            works = [step_work(model, size.length) for model in models]
            timings = time_models(contenders, Split(contest.x), batch_size=size.batch, repeats=repeats)
            layers = _layer_seconds(contenders, size, repeats)
            states = [model.states for model in models]
    before, after = works
    if before is None or after is None or not before.of_states or not after.of_states:
        raise RuntimeError("the work of an S5 model is known")
    whole, alone, ideal = timings[0].latency, layers[0], before.of_states / after.of_states
    found = {
        "states": states,
        "multiply_adds": [work.multiply_adds for work in (before, after)],
        "state_multiply_adds": [before.of_states, after.of_states],
        "pass_s": [timing.latency for timing in timings],
        "layers_s": layers,
        "ideal_layers": ideal,
        "layers": _ratio(layers),
        "layers_of_ideal": _ratio(layers) / ideal,
        "ideal_pass": whole / max(whole - alone + alone / ideal, 1e-9),
        "pass": _ratio([timing.latency for timing in timings]),
        "peak_memory": [timing.peak_memory for timing in timings],
        "memory_kind": timings[0].memory_kind,
    }
    found["pass_of_ideal"] = found["pass"] / found["ideal_pass"]
    return found | {"steps": _steps([timing.steps for timing in timings], before, after)}


def _layer_seconds(contenders: Sequence[Contender], size: Size, repeats: int) -> list[float]:
    """Median seconds of all layers of each model alone on one batch, the models in turns."""
    u = np.random.default_rng(1).normal(size=(size.batch, size.length, size.features)).astype(np.float32)
    u = jax.device_put(u)
    runs: list[Callable[[int], float]] = []
    for contender in contenders:
        systems = jax.device_put(in_precision(contender.forward, contender.systems))
        program = jax.jit(lambda systems, u: [simulate(system, u) for system in systems]).lower(systems, u).compile()
        runs.append(functools.partial(_seconds, functools.partial(program, systems, u)))
    calls = [calls_for(run) for run in runs]
    seconds, generator = np.zeros((len(runs), repeats)), np.random.default_rng(0)
    for round_ in range(repeats):
        for index in generator.permutation(len(runs)):
            seconds[index, round_] = runs[index](calls[index])
    return [float(np.median(row)) for row in seconds]


def _seconds(run: Callable[[], Any], calls: int) -> float:
    """Of one of so many calls."""
    begin = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(run())
    return (time.perf_counter() - begin) / calls


def _steps(steps: Sequence[Any], before: Work, after: Work) -> list[dict[str, Any]] | None:
    """Of single steps; None of a model that reads its sequences from both ends."""
    if any(one is None for one in steps):
        return None
    ideal, found = before.multiply_adds / after.multiply_adds, []
    for batch in steps[0]:
        seconds = [float(np.median(one[batch])) for one in steps]
        found.append({
            "batch": batch, "step_s": seconds, "speedup": _ratio(seconds), "ideal": ideal,
            "of_ideal": _ratio(seconds) / ideal,
        })  # fmt: skip
    return found


def _ratio(pair: Sequence[float]) -> float:
    return pair[0] / pair[1]


def main() -> None:
    """Print a line of figures for each size, then JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=[*ALL, "both"], default="both")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--layout", choices=["ragged", "padded", "uniform"], default="ragged")
    parser.add_argument("--examples", type=int, help="of the batch, fewer than the size has")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    print(f"# {machine()}")
    print(f"# {options.ratio:.0%} of the states pruned, {options.layout}")
    ideal = "ideal | of ideal"
    print(f"| size | layers alone | {ideal} | one pass | {ideal} | step of | one step | {ideal} |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    every = {}
    for name in list(SIZES) if options.size == "both" else [options.size]:
        size = ALL[name]
        if options.examples:
            size = dataclasses.replace(size, examples=options.examples, batch=options.examples)
        found = gains(size, ratio=options.ratio, layout=options.layout, repeats=options.repeats)
        first = [name, *(f"{found[key]:.2f}" for key in ("layers", "ideal_layers", "layers_of_ideal"))]
        first += [f"{found[key]:.2f}" for key in ("pass", "ideal_pass", "pass_of_ideal")]
        for step in found["steps"] or [None]:
            last = ["–"] * 4
            if step is not None:
                last = [str(step["batch"]), *(f"{step[key]:.2f}" for key in ("speedup", "ideal", "of_ideal"))]
            print(f"| {' | '.join([*first, *last])} |", flush=True)
            first = [""] * len(first)
        every[name] = found
    print(json.dumps(every, indent=2))


if __name__ == "__main__":
    main()
