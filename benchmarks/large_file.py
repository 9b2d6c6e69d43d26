"""Memory and time of `last` on a folder that is far larger than its state space layers, beside a plain copy of it.

    python -m benchmarks.large_file [--gib 4] [--model s5|mamba|mamba2] [--folder FOLDER] [--repeats 2]

Generates a sharded safetensors folder (s5: the bundled model, and beside it large matrices that carry no states; mamba
and mamba2: a language model of as many layers as it takes, width 2048), then runs `last inspect`, `score` and `prune`
as processes of their own, and by turns a plain copy that is put on the disk as well, and a prune of the layers without
the rest (mamba, mamba2: of one layer): what starts up, compiles and certifies, whatever the size of the file. Memory is
the peak resident memory of the process above that of `import lastcli, jax`. All that is generated is removed again.
The last line says what a sha256 of every byte and the copy itself take at least.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.commands import Run, imports_alone, run
from lastcli import demo

__all__ = ["copied", "floor", "generate", "hash_rate", "main", "measure"]

GIB = 2**30
SHARD = GIB
COPY = "plain copy and fsync"
SMALL = "last prune, the layers alone"
# The largest matrix is as large as a shard.
LARGE = (GIB // 4, GIB // 4, GIB // 2, GIB)
BLOCK = 2**22
PIECE = 2**20
WIDTH = 2048

Tensors = Iterator[tuple[str, tuple[int, ...], np.ndarray | None]]


def generate(folder: Path, model: str, size: int) -> None:
    """Write about `size` bytes of float32 tensors into a folder of shards."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 0.02, BLOCK).astype("<f4")
    shards: list[list[tuple[str, tuple[int, ...], np.ndarray | None]]] = [[]]
    held = 0
    for name, shape, values in _s5(size) if model == "s5" else _mamba(size, model):
        nbytes = 4 * int(np.prod(shape))
        if held + nbytes > SHARD and shards[-1]:
            shards.append([])
            held = 0
        shards[-1].append((name, shape, values))
        held += nbytes
    places = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write(folder / file, shard, noise)
        places |= {name: file for name, _, _ in shard}
    index = {"metadata": _description() if model == "s5" else {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    if model != "s5":
        (folder / "config.json").write_text(json.dumps({"state_size": 16 if model == "mamba" else 128, "n_groups": 1}))


def _description() -> dict[str, str]:
    """What the bundled model says of itself."""
    from safetensors import safe_open

    with safe_open(demo.checkpoint(), "numpy") as file:
        return {key: text for key, text in file.metadata().items() if key == "last.description"}


def _s5(size: int) -> Tensors:
    from safetensors.numpy import load_file

    for name, array in load_file(demo.checkpoint()).items():
        yield name, array.shape, array
    number = 0
    while size > 0:
        nbytes = min(LARGE[number % len(LARGE)], max(size // 4096 * 4096, 4096))
        yield f"params/adapter_{number}/kernel", (nbytes // 4096, 1024), None
        size, number = size - nbytes, number + 1


def _mamba(size: int, model: str) -> Tensors:
    H, d = WIDTH, 2 * WIDTH
    yield "backbone.embeddings.weight", (1024, H), None
    yield "backbone.norm_f.weight", (H,), None
    mixer: dict[str, tuple[int, ...]] = {"in_proj.weight": (2 * d, H), "out_proj.weight": (H, d)}
    if model == "mamba":
        N, rank = 16, H // 16
        mixer |= {"A_log": (d, N), "D": (d,), "conv1d.weight": (d, 1, 4), "conv1d.bias": (d,)}
        mixer |= {"x_proj.weight": (rank + 2 * N, d), "dt_proj.weight": (d, rank), "dt_proj.bias": (d,)}
    else:
        N, heads = 128, d // 64
        mixer |= {"in_proj.weight": (2 * d + 2 * N + heads, H), "A_log": (heads,), "D": (heads,), "dt_bias": (heads,)}
        mixer |= {"conv1d.weight": (d + 2 * N, 1, 4), "conv1d.bias": (d + 2 * N,), "norm.weight": (d,)}
    layer = 0
    while size > 0:
        for name, shape in mixer.items():
            yield f"backbone.layers.{layer}.mixer.{name}", shape, None
            size -= 4 * int(np.prod(shape))
        yield f"backbone.layers.{layer}.norm.weight", (H,), None
        layer += 1


def _write(path: Path, tensors: list[tuple[str, tuple[int, ...], np.ndarray | None]], noise: np.ndarray) -> None:
    header, end = {}, 0
    for name, shape, _ in tensors:
        nbytes = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + nbytes]}
        end += nbytes
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for number, (_, shape, values) in enumerate(tensors):
            if values is not None:
                file.write(np.ascontiguousarray(values, "<f4").tobytes())
                continue
            left = int(np.prod(shape))
            while left > 0:
                part = np.roll(noise, number)[: min(left, BLOCK)]
                file.write(part.tobytes())
                left -= len(part)
        file.flush()
        os.fsync(file.fileno())


def copied(source: Path, target: Path) -> Run:
    """A plain copy of a folder, every file put on the disk."""
    begin, busy = time.perf_counter(), time.process_time()
    target.mkdir()
    for file in sorted(source.iterdir()):
        shutil.copy(file, target / file.name)
        with (target / file.name).open("rb") as stream:
            os.fsync(stream.fileno())
    return Run(time.perf_counter() - begin, time.process_time() - busy, 0)


def hash_rate() -> float:
    """Bytes that one processor core takes into a sha256 in a second of its own time; the best of five."""
    piece, rates = memoryview(bytes(PIECE)), []
    for _ in range(5):
        digest, busy = hashlib.sha256(), time.process_time()
        for _ in range(256):
            digest.update(piece)
        rates.append(256 * PIECE / (time.process_time() - busy))
    return max(rates)


def floor(nbytes: int, rate: float, copy: float, cores: int) -> float:
    """Seconds that a copy which computes the sha256 of all its bytes takes at least, however well it is spread.

    Args:
        nbytes: how much is copied.
        rate: what a core hashes in a second.
        copy: processor seconds of the plain copy.
        cores: that there are; the sha256 runs on one of them.
    """
    return max(nbytes / rate, (nbytes / rate + copy) / cores)


def measure(folder: Path, model: str, size: int, repeats: int) -> list[str]:
    """The lines of the table."""
    source, small, out = folder / "model", folder / "small", folder / "out"
    generate(source, model, size)
    generate(small, model, 1)
    here = [str(source)]
    method = ["--method", "last" if model == "s5" else "uniform-magnitude"]
    prune = [*method, "--ratio", "0.5", "--shard-size", "1GiB", "--out", str(out)]
    commands = {
        "last inspect": ["inspect", *here],
        "last score": ["score", *here, *method],
        SMALL: ["prune", str(small), *prune],
        "last prune": ["prune", *here, *prune],
    }
    base = imports_alone()
    runs: dict[str, list[Run]] = {name: [] for name in (COPY, *commands)}
    for _ in range(repeats):
        for name, command in commands.items():
            if name == "last prune":
                runs[COPY].append(copied(source, folder / "copy"))
                shutil.rmtree(folder / "copy")
            runs[name].append(run("-m", "lastcli", *command, "--quiet"))
            shutil.rmtree(out, ignore_errors=True)
    bytes_ = sum(file.stat().st_size for file in source.iterdir())
    shards = len(list(source.glob("*.safetensors")))
    lines = [
        f"{model}, {bytes_ / GIB:.2f} GiB in {shards} shards, medians of {repeats}; the imports alone take "
        f"{base / 2**20:.0f} MiB.",
        "",
        "| run | seconds | processor seconds | peak memory above the imports, MiB |",
        "|---|--:|--:|--:|",
    ]
    for name, found in runs.items():
        seconds = statistics.median(one.seconds for one in found)
        peak = "–" if name == COPY else f"{max(0, max(one.peak for one in found) - base) / 2**20:.0f}"
        busy = statistics.median(one.busy for one in found)
        lines.append(f"| {name} | {seconds:.1f} | {busy:.1f} | {peak} |")
    starts = (one.seconds for one in runs[SMALL])
    timed = zip(runs["last prune"], starts, runs[COPY], strict=True)
    ratios = ", ".join(f"{(prune.seconds - start) / copy.seconds:.2f}" for prune, start, copy in timed)
    lines += ["", f"`last prune` less that of the small folder, over the copy made before it: {ratios}."]
    rate, cores = hash_rate(), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    seconds, busy = (statistics.median(getattr(one, name) for one in runs[COPY]) for name in ("seconds", "busy"))
    least = floor(bytes_, rate, busy, cores)
    lines += [
        "",
        f"A sha256 of every byte, at {rate / GIB:.2f} GiB/s a core, takes {bytes_ / rate:.1f} processor seconds; "
        f"with those of the copy, on {cores} cores, {least:.1f} seconds, {least / seconds:.2f} times the copy.",
    ]
    return lines


def main() -> None:
    """Print the machine and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gib", type=float, default=4.0)
    parser.add_argument("--model", choices=("s5", "mamba", "mamba2"), default="s5")
    parser.add_argument("--folder", type=Path, help="where to generate, on the disk to measure (a temporary folder)")
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    size = int(given.gib * GIB)
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="large-") as name:
        folder = Path(name)
        if shutil.disk_usage(folder).free < 3.2 * size:
            raise SystemExit(f"{folder} needs {3.2 * given.gib:.1f} GiB free; name another with --folder.")
        lines = measure(folder, given.model, size, given.repeats)
    # JAX is imported late: a process inherits the peak of the one that starts it
    from benchmarks.machine import machine

    print(f"{machine()}\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
