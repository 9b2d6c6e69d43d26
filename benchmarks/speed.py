"""A sweep of `last` against the masked passes of the published code, and each pass against the machine's own floor.

    python -m benchmarks.speed [--size small|large|both] [--examples N] [--repeats 5]

Two models of published sizes with random weights, nine ratios, batches of examples that both run whole. The split is of
one or two batches, or of `--examples`, a multiple of the batch: enough of them pay for programs of other widths. The
reference (benchmarks/reference.py) is compiled beforehand; so is `last` where it says "again". The floor of one full-
size pass is its matrix products at the rate this machine reaches on them alone, plus one reading and one writing of
every intermediate array at the rate of a copy. Ratios are of medians taken in one run, the programs by turns. Compiled
programs are kept between sweeps in a folder, as the command line keeps them; the folder is empty at first.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

import lastcli
from benchmarks.machine import machine
from benchmarks.reference import ReferenceS5, masked_pass
from lastcli.cli.compile_cache import VARIABLE, enable_compile_cache
from lastcli.evaluation.data import Split
from lastcli.evaluation.sweep import evaluate_candidates
from lastcli.model.checkpoint import Checkpoint
from lastcli.model.opening import open_checkpoint

__all__ = ["SIZES", "Size", "main"]

RATIOS = "0:0.8:0.1"


@dataclass(frozen=True)
class Size:
    """A model and the data it runs over; `examples` fit one batch of the reference."""

    layers: int
    features: int
    states: int
    length: int
    examples: int
    batch: int
    bidirectional: bool = False


SIZES = {
    "small": Size(layers=4, features=96, states=64, length=784, examples=64, batch=32),
    "large": Size(layers=6, features=512, states=192, length=1024, examples=8, batch=8, bidirectional=True),
}


class Contest:
    """Both programs on one model: a checkpoint and a split in `folder`, the same parameters in the reference."""

    def __init__(self, size: Size, folder: Path) -> None:
        from safetensors.numpy import save_file

        self.size = size
        self.reference = ReferenceS5(size.layers, size.features, size.states, 10, size.bidirectional)
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(size.examples, size.length, 1)).astype(np.float32)
        self.y = rng.integers(0, 10, size.examples)
        self.masks = jnp.ones((size.layers, size.states))
        self.variables = self.reference.init(jax.random.key(0), self.x[0], self.masks)
        tensors = {"/".join(name): np.asarray(value) for name, value in flatten_dict(self.variables).items()}
        self.checkpoint, self.data = folder / "model.safetensors", folder / "data.npz"
        save_file(tensors, self.checkpoint)
        np.savez(self.data, x=self.x, y=self.y)
        self.program = masked_pass(self.reference)

    def sweep(self) -> Any:
        """`last sweep` over the nine ratios, from opening the file to the table."""
        return lastcli.sweep(self.checkpoint, method="last", refit="none", ratios=RATIOS, data=self.data)

    def full_pass(self) -> Any:
        """One pass of the whole model over the split by `last`: model open, data read, program compiled."""
        checkpoint, split = self._opened
        return evaluate_candidates(checkpoint.require_forward(), checkpoint.params, [checkpoint.systems], split)

    @cached_property
    def _opened(self) -> tuple[Checkpoint, Split]:
        return open_checkpoint(self.checkpoint), Split(self.x, self.y)

    def published(self, masks: np.ndarray) -> list[int]:
        """One masked pass a ratio over all batches."""
        size = self.size
        counts = []
        for mask in masks:
            passes = range(0, size.examples, size.batch)
            parts = [self.program(self.variables, mask, *self._batch(start)) for start in passes]
            counts.append(sum(int(part) for part in parts))
        return counts

    def _batch(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        return self.x[start : start + self.size.batch], self.y[start : start + self.size.batch]


def floor(size: Size) -> float:
    """Seconds below which no full-size pass over all examples comes on this machine: products and memory."""
    H, P, R = size.features, size.states, 2 if size.bidirectional else 1
    rows = size.batch * size.length
    shapes = [(H, 2 * P)] + [(2 * P, H)] * R + [(H, H)]
    products = sum(_product_seconds(rows, *shape) for shape in shapes)
    # norm, states of each direction, read-out, gelu, gate and skip: each array read once and written once
    arrays = rows * (5 * H + R * 2 * P)
    return size.layers * (products + _copy_seconds(arrays)) * (size.examples / size.batch)


def _product_seconds(rows: int, inner: int, outer: int) -> float:
    a, b = jnp.ones((rows, inner)), jnp.ones((inner, outer))
    return _fastest(jax.jit(lambda: jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST)))


def _copy_seconds(entries: int) -> float:
    source = np.ones(entries, np.float32)
    target = np.empty_like(source)
    return _fastest(lambda: np.copyto(target, source))


def _fastest(run: Callable[[], Any], repeats: int = 7) -> float:
    jax.block_until_ready(run())
    return min(_seconds(run) for _ in range(repeats))


def _seconds(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begin


def contest(name: str, repeats: int, examples: int | None = None) -> dict[str, Any]:
    """Every figure of one size, with its own number of examples or another."""
    size = SIZES[name] if examples is None else dataclasses.replace(SIZES[name], examples=examples)
    with tempfile.TemporaryDirectory() as folder:
        both = Contest(size, Path(folder))
        os.environ[VARIABLE] = folder
        enable_compile_cache()
        begin = time.perf_counter()
        swept = both.sweep()
        first = time.perf_counter() - begin
        masks = np.stack([_masks(size, row.layers) for row in swept.rows])
        both.published(masks[:1])
        both.full_pass()
        times: dict[str, list[float]] = {"again": [], "published": [], "pass": []}
        for _ in range(repeats):
            times["again"].append(_seconds(both.sweep))
            times["published"].append(_seconds(lambda: both.published(masks)))
            times["pass"].append(_seconds(both.full_pass))
        median = {key: statistics.median(values) for key, values in times.items()}
        least = floor(size)
    return {
        "size": name,
        "first_sweep_s": first,
        "sweep_s": median["again"],
        "published_s": median["published"],
        "times_as_fast": median["published"] / median["again"],
        "pass_s": median["pass"],
        "floor_s": least,
        "pass_over_floor": median["pass"] / least,
        "sweep_over_floor": median["again"] / (10 * least),
    }


def _masks(size: Size, layers: tuple[int, ...]) -> np.ndarray:
    return np.stack([(np.arange(size.states) < kept).astype(np.float32) for kept in layers])


def main() -> None:
    """Print a line of figures for each size, then JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=[*SIZES, "both"], default="both")
    parser.add_argument("--examples", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"# {machine()}")
    names = list(SIZES) if options.size == "both" else [options.size]
    found = [contest(name, options.repeats, options.examples) for name in names]
    print("| size | first sweep | sweep again | published passes | times as fast | one pass | floor | pass / floor |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for one in found:
        shown = " | ".join(f"{one[key]:.2f} s" for key in ("first_sweep_s", "sweep_s", "published_s"))
        print(
            f"| {one['size']} | {shown} | {one['times_as_fast']:.2f} | {one['pass_s']:.2f} s | {one['floor_s']:.2f} s "
            f"| {one['pass_over_floor']:.2f} |"
        )
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
