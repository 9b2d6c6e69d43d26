"""The tables as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Sequence

from benchmarks.reproduce.aggregate import DRAWN, TRAINING, Column, Curve, Summary, curves, ratio_within, summaries
from benchmarks.reproduce.collect import Collection, Run
from benchmarks.reproduce.measure import POLE_SEQUENCES
from benchmarks.reproduce.published import BASELINES, CHOSEN, HEADLINE, IN_TRAINING

__all__ = ["csv_text", "markdown"]

TITLES = {
    "tasks": "Models",
    "summary": "Over all tasks, in the papers' manner",
    "drops": "Mean loss over the tasks at every ratio, in points",
    "tasks_detail": "Every task",
    "compact": "Compact models (obs, calibrated refit)",
    "scoring": "Wall time of scoring, from the file to the scores of all states",
    "calibration": "Loss against the number of calibration sequences (obs, calibrated refit, mean over tasks, points)",
    "published": "Published numbers",
}


def markdown(collection: Collection) -> str:
    """All tables, with a heading each."""
    found = curves(collection.records)
    overall = summaries(found)
    parts = {
        "tasks": models_table(collection),
        "summary": summary_table(overall),
        "drops": drops_table(overall),
        "tasks_detail": "\n\n".join(task_table(task, found) for task in collection.tasks),
        "compact": compact_table(collection),
        "scoring": scoring_table(collection),
        "calibration": calibration_table(collection.runs),
        "published": published_table(),
    }
    return "\n\n".join(f"### {TITLES[name]}\n\n{text}" for name, text in parts.items() if text) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(header) + " |", "|---" + "|--:" * (len(header) - 1) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def percent(value: float, digits: int = 1) -> str:
    """A fraction in percent or points."""
    return f"{100 * value:.{digits}f}"


def models_table(collection: Collection) -> str:
    rows = []
    for task in collection.tasks:
        runs = collection.of(task)
        training = runs[0].training
        model = training["setting"]["model"]
        stored = model["ssm_size"] // 2 if model["conj_sym"] else model["ssm_size"]
        sizes = training["sizes"]
        rows.append(
            [
                task,
                str(training["length"]),
                "/".join(str(sizes[name]) for name in ("train", "validation", "calibration", "test")),
                f"{model['layers']} × {model['d_model']} × {stored}" + (" both ways" if model["bidirectional"] else ""),
                str(len(runs)),
                _mean_spread([run.measured["baseline"] for run in runs]),
                f"{statistics.fmean(run.training['seconds'] for run in runs):.0f}",
            ]
        )
    header = ["task", "length", "train/val/cal/test", "layers × width × states", "seeds", "test %", "training s"]
    notes = [f"- {task}: {collection.of(task)[0].training['note']}" for task in collection.tasks]
    return table(header, rows) + "\n\n" + "\n".join(notes)


def summary_table(overall: Sequence[Summary]) -> str:
    rows = [
        [
            summary.column.label,
            str(summary.tasks),
            percent(summary.own_ratio, 0),
            percent(summary.own_loss, 2),
            "" if summary.loss_at_last is None else percent(summary.loss_at_last, 2),
            _published(summary.column),
            percent(summary.within, 0),
        ]
        for summary in overall
    ]
    header = [
        "method", "tasks", "own mean ratio %", "mean loss there", "mean loss at LAST's ratios", "the same, published",
        "ratio with mean loss ≤ 1 point",
    ]  # fmt: skip
    text = table(header, rows)
    if any(summary.ratios and summary.ratios[0] > 0 for summary in overall):
        text += (
            "\n\nA column that was measured at high ratios only counts as 0 on a task that loses more than a point at "
            "the first of them."
        )
    return text


def _published(column: Column) -> str:
    """The published loss of this method at LAST's ratios; nothing where there is none."""
    known = column == Column(column.method, "none") and column.method in BASELINES
    return f"{BASELINES[column.method]:.2f}" if known else ""


def drops_table(overall: Sequence[Summary]) -> str:
    ratios, most = overall[0].ratios, max(summary.tasks for summary in overall)
    rows = []
    for summary in overall:
        known = dict(zip(summary.ratios, summary.mean_drops))
        fewer = f" ({summary.tasks} tasks)" if summary.tasks < most else ""
        rows.append(
            [summary.column.label + fewer, *(percent(known[ratio]) if ratio in known else "–" for ratio in ratios)]
        )
    text = table(["method", *(f"{percent(ratio, 0)}%" for ratio in ratios)], rows)
    return "\n\n".join([text, *_inputs_notes([summary.column for summary in overall])])


def _inputs_notes(columns: Sequence[Column]) -> list[str]:
    """What the refits were given, and what a step is."""
    notes = []
    if any(column.refit == "poles" for column in columns):
        notes.append(
            f"The `poles` refit sees the first {POLE_SEQUENCES} calibration sequences, every other one sees all."
        )
    if any(column.inputs == TRAINING for column in columns):
        notes.append("Training inputs: those of the whole training part instead, labels unused.")
    if any(column.inputs == DRAWN for column in columns):
        notes.append(
            "Drawn inputs: Gaussian noise of the length, the mean and the standard deviation of the training inputs "
            "instead; of tokens, each as likely as any other."
        )
    if any(column.steps > 1 for column in columns):
        notes.append("Steps: stages of one pruning down to 90%; the other ratios are further stages on its way.")
    return [" ".join(notes)] if notes else []


def task_table(task: str, found: Sequence[Curve]) -> str:
    own = [curve for curve in found if curve.task == task]
    rows = []
    for curve in own:
        known = {ratio: (value, spread) for ratio, value, spread in zip(curve.ratios, curve.values, curve.spreads)}
        cells = [_cell(known[ratio], curve.seeds) if ratio in known else "–" for ratio in own[0].ratios]
        rows.append([curve.column.label, *cells, f"{percent(ratio_within(curve.ratios, curve.drops), 0)}%"])
    header = [task, *(f"{percent(ratio, 0)}%" for ratio in own[0].ratios), "within 1 point"]
    return table(header, rows)


def compact_table(collection: Collection) -> str:
    rows = []
    for run in collection.runs:
        for entry in run.compact:
            rows.append(
                [
                    run.task,
                    f"{percent(entry['ratio'], 0)}%",
                    "{} → {}".format(*entry["states"]),
                    "{:,} → {:,}".format(*entry["parameters"]),
                    "{:.0f} → {:.0f}".format(*(size / 1e3 for size in entry["bytes"])),
                    "{:.2f} → {:.2f}".format(*(1e3 * seconds for seconds in entry["latency"])),
                    _memory(entry["memory"]),
                    f"{entry['batch_size']} × {entry['length']}",
                ]
            )
    header = ["task", "removed", "states", "parameters", "kB", "ms a batch", "peak MB", "batch × length"]
    return table(header, rows) if rows else ""


def scoring_table(collection: Collection) -> str:
    rows, methods = [], []
    for task in collection.tasks:
        timed = [run.measured["scoring"] for run in collection.of(task) if run.measured["scoring"]]
        if timed:
            methods = list(timed[0])
            rows.append([task, *(f"{1e3 * statistics.fmean(seconds[m] for seconds in timed):.1f}" for m in methods)])
    return table(["milliseconds", *methods], rows) if rows else ""


def calibration_table(runs: Sequence[Run]) -> str:
    """Rows of equal numbers of sequences, and one of everything that each task has; means over the same models."""
    common = [run for run in runs if len({entry["examples"] for entry in run.measured["calibration"]}) > 1]
    drops: dict[tuple[int | None, float], list[float]] = {}
    for run in common:
        largest = max(entry["examples"] for entry in run.measured["calibration"])
        for entry in run.measured["calibration"]:
            size = None if entry["examples"] == largest else entry["examples"]
            drops.setdefault((size, entry["ratio"]), []).append(entry["drop"])
    ratios = sorted({ratio for _, ratio in drops})
    # Only sizes that most models have, so that a row is not about two tasks.
    sizes = sorted({size for size, _ in drops if size is not None and len(drops[size, ratios[0]]) >= 0.6 * len(common)})
    rows = [
        [label, str(len(drops[size, ratios[0]])), *(percent(statistics.fmean(drops[size, r]), 2) for r in ratios)]
        for size, label in [*((size, str(size)) for size in sizes), (None, "all")]
        if (size, ratios[0]) in drops
    ]
    return table(["sequences", "models", *(f"{percent(ratio, 0)}%" for ratio in ratios)], rows) if rows else ""


def published_table() -> str:
    rows = [
        [
            one.task,
            str(one.length),
            f"{one.full:.2f}",
            f"{one.last_ratio}% → {one.last:.2f}",
            f"{one.aire_ratio}% → {one.aire:.2f}",
        ]
        for one in CHOSEN
    ]
    ratio, loss = HEADLINE
    text = f"LAST on S5, mean over ten tasks: {ratio:.0f}% removed, {loss:.2f} points lost (arXiv 2411.02824)."
    found = table(["S5, published", "length", "full", "LAST", "AIRE-Prune"], rows) + "\n\n" + text
    smaller = [
        [
            one.task,
            f"{one.full_states} → {one.states}",
            f"{one.removed:.0f}%",
            f"{one.full:.1f} → {one.value:.1f}",
            f"{one.full - one.value:.1f}",
        ]
        for one in IN_TRAINING
    ]
    return (
        f"{found}\n\n{table(['CompreSSM on LRU, published', 'states', 'removed', 'accuracy', 'lost'], smaller)}\n\n"
        "Balanced truncation during training, after which training goes on (arXiv 2510.02823): labels, the training "
        "data and the optimiser are needed, the pixels are whole images (784 and 1,024 steps), the models other ones. "
        "The rows of smnist here are 14 × 14 pixels, trained once and made smaller afterwards, without labels."
    )


def csv_text(collection: Collection) -> str:
    """One line for each task, column and ratio: mean, spread and drop over the seeds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["task", "method", "refit", "steps", "inputs", "ratio", "value_mean", "value_sd", "drop_mean", "seeds"]
    )
    for curve in curves(collection.records):
        for ratio, value, spread, drop in zip(curve.ratios, curve.values, curve.spreads, curve.drops):
            numbers = [f"{ratio:g}", f"{value:.6f}", f"{spread:.6f}", f"{drop:.6f}", curve.seeds]
            column = curve.column
            writer.writerow([curve.task, column.method, column.refit, column.steps, column.inputs, *numbers])
    return text.getvalue()


def _cell(value: tuple[float, float], seeds: int) -> str:
    return percent(value[0]) + (f" ± {percent(value[1])}" if seeds > 1 else "")


def _mean_spread(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{percent(statistics.fmean(values))} ± {percent(spread)}"


def _memory(values: Sequence[int | None]) -> str:
    return " → ".join("–" if value is None else f"{value / 1e6:.1f}" for value in values)
