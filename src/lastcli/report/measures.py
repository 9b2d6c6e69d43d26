"""Reports of the verbs that measure a model: sweep, eval, verify, bench."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lastcli.report.blocks import Block, Cell, Column, Grid, Line, grid, notes_lines
from lastcli.report.text import (
    bytes_text,
    count,
    error_text,
    is_share,
    name_text,
    nats_text,
    peak_text,
    relative_text,
    rise_text,
    safe_text,
    seconds_text,
    shrinkage,
)

if TYPE_CHECKING:
    from lastcli.results import BenchResult, BenchRun, EvalResult, LayerCertificate, VerifyResult

__all__ = [
    "bench_blocks",
    "certificates",
    "drop_text",
    "drop_title",
    "eval_blocks",
    "interval_text",
    "metric_text",
    "verify_blocks",
]


# A fit index may fall without bound; from here on the points lost are shown by their power of ten.
MOST_POINTS = 1000.0


def metric_text(metric: str, value: float | None, n: int = 0) -> str:
    """A share in percent (two digits from 1000 examples on), a fit index in percent, an error in four digits."""
    if value is None or not math.isfinite(value):
        return error_text(value)
    if is_share(metric):
        return f"{100 * value:.{1 if n < 1000 else 2}f}%"
    if metric == "fit":
        return f"{value:.2f}%" if abs(value) < 100 * MOST_POINTS else f"{value:.2g}%"
    return f"{value:#.4g}".removesuffix(".")


def interval_text(metric: str, low: float | None, high: float | None, n: int = 0) -> str:
    """Both ends of an interval."""
    if low is None or high is None:
        return "–"
    first, last = metric_text(metric, low, n), metric_text(metric, high, n)
    return f"{first.removesuffix('%')} – {last}"


def drop_text(metric: str, drop: float | None, n: int = 0) -> str:
    """Points lost for shares and fit, nats for nll, percent risen for errors; a gain has a minus."""
    if drop is None or not math.isfinite(drop):
        return "–" if drop is None or drop != drop else error_text(drop)
    if metric == "nll":
        return nats_text(drop)
    if is_share(metric) or metric == "fit":
        text = f"{100 * drop:.{1 if n < 1000 else 2}f}" if abs(drop) < MOST_POINTS else f"{100 * drop:.2g}"
        return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")
    return rise_text(drop)


def drop_title(metric: str) -> str:
    """The head of the column of drops."""
    if metric == "nll":
        return "nats lost"
    return "points lost" if is_share(metric) or metric == "fit" else "rise"


def eval_blocks(result: EvalResult) -> list[Block]:
    """The metric and its interval in one line."""
    value = metric_text(result.metric, result.value, result.n)
    interval = interval_text(result.metric, result.ci_low, result.ci_high, result.n)
    text = f"{name_text(result.metric)} {value}"
    if interval != "–":
        text += f" (95% interval {interval})"
    where = f" of {name_text(result.data)}" if result.data else ""
    text += f" on {count(result.n)} {'example' if result.n == 1 else 'examples'}{where}"
    if result.warmup:
        text += f", first {result.warmup} steps left out"
    blocks: list[Block] = [Line(f"{name_text(result.checkpoint)}: {text}")]
    if result.fail_under is not None and result.passed is not None:
        floor = metric_text(result.metric, result.fail_under, result.n)
        below = any(gate.kind == "fail_under" and not gate.ok for gate in result.gates)
        failed = f"{name_text(result.metric)} is below {floor}" if below else "the reason is below"
        blocks.append(
            Line(f"Gate passed: at least {floor}.", "good") if result.passed else Line(f"Gate FAILED: {failed}.", "bad")
        )
    return [*blocks, *notes_lines(result.notes)]


def certificates(layers: tuple[LayerCertificate, ...], title: str) -> Grid:
    """Bounds and errors of each layer."""
    measured = any(layer.data_error is not None for layer in layers)
    rows = [
        (
            name_text(layer.name),
            f"{count(layer.states_before)} → {count(layer.states_after)}",
            error_text(layer.hinf_error_bound),
            peak_text(layer.hinf_error, layer.hinf_exact),
            relative_text(layer.h2_error),
            *([relative_text(layer.data_error)] if measured else []),
        )
        for layer in layers
    ]
    columns = [
        Column("layer", False),
        Column("states"),
        Column("H∞ bound"),
        Column("H∞ error"),
        Column("H₂ error"),
        *([Column("on data")] if measured else []),
    ]
    return grid(columns, rows, title)


def verify_blocks(result: VerifyResult) -> list[Block]:
    """Every check, then the verdict."""
    rows = [
        (
            Cell("ok" if check.ok else "FAILED", "good" if check.ok else "bad"),
            name_text(check.name),
            name_text(check.how) if check.how and check.ok else "",
            safe_text(check.detail) or "–",
        )
        for check in result.checks
    ]
    columns = [Column("", False), Column("check", False), Column("how", False), Column("detail", False)]
    blocks: list[Block] = [grid(columns, rows, f"{name_text(result.pruned)} against {name_text(result.original)}")]
    if result.layers:
        blocks.append(certificates(result.layers, "Layers"))
    if result.max_abs_difference is not None:
        blocks.append(Line(f"Largest difference from the masked original: {error_text(result.max_abs_difference)}"))
    if result.max_output_difference is not None:
        largest, mean = error_text(result.max_output_difference), error_text(result.mean_output_difference)
        blocks.append(Line(f"Difference from the original itself: {largest} at most, {mean} on average"))
    failed = sum(not check.ok for check in result.checks)
    trusted = [name_text(check.name) for check in result.checks if check.how == "trusted"]
    held = "Verified: all checks hold" + (f"; the record's word for: {', '.join(trusted)}." if trusted else ".")
    verdict = held if result.ok else f"NOT verified: {failed} of {len(result.checks)} failed."
    blocks.append(Line(verdict, "good" if result.ok else "bad"))
    return blocks + notes_lines(result.notes)


Row = tuple[str, str, str, str]


def _step_rows(a: BenchRun, b: BenchRun) -> list[Row]:
    """What a running sequence gains: first of all for models that are run step by step."""
    kinds = (
        ("state a sequence", "state_bytes", bytes_text),
        ("multiply-adds a step", "multiply_adds", count),
        ("  of the states", "state_multiply_adds", count),
    )
    found = [(name, getattr(a, key), getattr(b, key), show) for name, key, show in kinds]
    rows = [(name, show(x), show(y), shrinkage(x, y)) for name, x, y, show in found if x is not None and y is not None]
    for x, y in zip(a.steps or (), b.steps or ()):
        name = f"step of {count(x.batch_size)}, median"
        rows.append((name, seconds_text(x.latency), seconds_text(y.latency), shrinkage(x.latency, y.latency)))
    return rows


def bench_blocks(result: BenchResult) -> list[Block]:
    """Original and pruned side by side."""
    a, b = result.original, result.pruned
    rows = [
        *_step_rows(a, b),
        ("states", count(a.states), count(b.states), shrinkage(a.states, b.states)),
        ("parameters", count(a.parameters), count(b.parameters), shrinkage(a.parameters, b.parameters)),
        ("file", bytes_text(a.bytes), bytes_text(b.bytes), shrinkage(a.bytes, b.bytes)),
        ("latency, median", seconds_text(a.latency), seconds_text(b.latency), shrinkage(a.latency, b.latency)),
        (
            "latency, 5 – 95%",
            f"{seconds_text(a.latency_low)} – {seconds_text(a.latency_high)}",
            f"{seconds_text(b.latency_low)} – {seconds_text(b.latency_high)}",
            "–",
        ),
        ("examples a second", count(a.throughput), count(b.throughput), shrinkage(a.throughput, b.throughput)),
        (
            "peak memory",
            bytes_text(a.peak_memory),
            bytes_text(b.peak_memory),
            "–" if a.peak_memory is None or b.peak_memory is None else shrinkage(a.peak_memory, b.peak_memory),
        ),
    ]
    columns = [Column("", False), Column("original"), Column("pruned"), Column("change", spare=1)]
    where = (
        f"batches of {result.batch_size} × {result.length} steps, {result.repeats} rounds, {name_text(result.dtype)}"
    )
    blocks: list[Block] = [
        Line(f"original: {name_text(a.checkpoint)}", "dim"),
        Line(f"pruned: {name_text(b.checkpoint)}", "dim"),
        grid(columns, rows, f"{name_text(result.device)}, {where}"),
    ]
    speed = f"Speed-up {result.speedup:.2f} ×"
    if result.speedup_low is not None and result.speedup_high is not None:
        speed += f" (95% interval {result.speedup_low:.2f} – {result.speedup_high:.2f})"
    blocks.append(Line(speed, "mark"))
    if result.step_speedups:
        steps = [f"{one.speedup:.2f} × ({count(one.batch_size)} side by side)" for one in result.step_speedups]
        blocks.append(Line(f"Step by step {', '.join(steps)}", "mark"))
    if a.memory_kind:
        blocks.append(Line(f"Memory as counted by: {name_text(a.memory_kind)}.", "dim"))
    return blocks + notes_lines(result.notes)
