"""Whether moving states between layers by end-to-end error beats the ranking over all layers.

    python -m benchmarks.reproduce.exchange FOLDER... [--ratios 0.7,0.8,0.9] [--match]

From the numbers of states that `obs` keeps in every layer, states go from one layer to another as long as the outputs
of the whole model (its read-outs refitted on the calibration inputs) come closer to the original's on training inputs
that no refit has seen. The loss on the test part is then that of either division, with the refits named. FOLDER is one
trained model of `benchmarks.reproduce.run`. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reproduce.measure import model_options
from benchmarks.reproduce.render import table
from lastcli.engine.embedding import embed
from lastcli.engine.protocol import Reduction, System
from lastcli.evaluation.data import Split
from lastcli.evaluation.passes import model_outputs
from lastcli.plan import METHODS, REFITS, Method, Refit, build_plan
from lastcli.reduction.compressor import Compressor
from lastcli.verbs.shared.measuring import measure
from lastcli.verbs.shared.session import Session

__all__ = ["Divided", "exchange"]

OBS, CALIBRATED = METHODS["obs"], REFITS["calibrated"]
# Training inputs that the error of a division is taken on.
UNSEEN = 256


class Divided(Compressor):
    """A compressor whose layers keep given numbers of states, each layer's best ones.

    Attributes:
        counts: states a layer; None for what the ranking says.
    """

    counts: Sequence[int] | None = None

    def kept(self, method: Method, refit: Refit = CALIBRATED, **goal: Any) -> list[np.ndarray]:
        """The best `counts` states of every layer; what the goal asks for where there are none."""
        if self.counts is None:
            return super().kept(method, refit, **goal)
        ranked = [np.argsort(-rank, axis=1, kind="stable") for rank in self._ranks(method, refit)]
        kept = [np.sort(order[:, :count], axis=1) for order, count in zip(ranked, self.counts)]
        return self._exchanged(kept, method, refit)


def exchange(compressor: Divided, unseen: Split, ratio: Decimal) -> tuple[list[int], list[int], int]:
    """The ranking's numbers of states, those after all exchanges that help, and how many divisions were tried.

    Steps are a sixteenth of all kept states at first and are halved where none of that size helps any more.
    """
    ranked = [reduction.kept.shape[1] for reduction in compressor.reduce_at_once(OBS, CALIBRATED, ratio=ratio)]
    target = _outputs(compressor, compressor.systems, unseen)
    known: dict[tuple[int, ...], float] = {}

    def error(counts: Sequence[int]) -> float:
        key = tuple(counts)
        if key not in known:
            compressor.counts = key
            known[key] = _distance(target, _outputs(compressor, _masked(compressor, _reduce(compressor)), unseen))
        return known[key]

    best, step = list(ranked), max(sum(ranked) // 16, 1)
    while step:
        tries = []
        for source, goal in itertools.permutations(range(len(best)), 2):
            counts = list(best)
            counts[source] -= step
            counts[goal] += step
            if counts[source] >= 1 and counts[goal] <= compressor.systems[goal].stored_states:
                tries.append(counts)
        closest = min(tries, key=error, default=best)
        if error(closest) < error(best):
            best = closest
        else:
            step //= 2
    return ranked, best, len(known)


def _reduce(compressor: Divided, refit: Refit = CALIBRATED) -> list[Reduction]:
    return compressor.reduce_at_once(OBS, refit, ratio=Decimal(0))  # the counts say how many


def _masked(compressor: Divided, reductions: Sequence[Reduction]) -> list[System]:
    return [embed(system, reduction) for system, reduction in zip(compressor.systems, reductions)]  # type: ignore[arg-type]


def _outputs(compressor: Divided, systems: Sequence[System], split: Split) -> np.ndarray:
    checkpoint = compressor.checkpoint
    return np.concatenate(list(model_outputs(checkpoint.require_forward(), checkpoint.params, tuple(systems), split)))


def _distance(wanted: np.ndarray, got: np.ndarray) -> float:
    """Squared error of the outputs (logits or predictions), relative to the spread of those wanted."""
    wanted, got = wanted.astype(np.float64), got.astype(np.float64)
    return float(((got - wanted) ** 2).sum() / ((wanted - wanted.mean(axis=0)) ** 2).sum())


def rows(folder: Path, ratios: Sequence[str], refits: Sequence[str]) -> list[list[str]]:
    """One line of the table for each ratio of one trained model."""
    training = json.loads((folder / "training.json").read_text())
    options = {"checkpoint": str(folder / "model.safetensors"), **model_options(folder, training)}
    plan = build_plan({key: str(value) if isinstance(value, Path) else value for key, value in options.items()})
    scale = 1.0 if training["metric"] != "accuracy" else 100.0  # a fit index is in percent already
    found = []
    with Session(plan) as session:
        compressor = Divided(session.checkpoint, session.reducing, session.calibration)
        train = Session(plan.replace(data=str(folder.parent / "data" / "train.npz"))).inputs
        assert train is not None
        unseen = train.thinned(UNSEEN)
        for ratio in ratios:
            compressor.counts = None
            ranked, best, tried = exchange(compressor, unseen, Decimal(ratio))
            cells = [training["task"], str(training["seed"]), f"{float(ratio):.0%}", _counts(ranked), _counts(best)]
            for refit in refits:
                candidates: list[Any] = [None]
                for counts in (ranked, best):
                    compressor.counts = counts
                    candidates.append(_reduce(compressor, REFITS[refit]))
                full, *values = (evaluation.value for evaluation in measure(session, candidates, "Measuring"))
                cells += [f"{scale * (full - value):.2f}" for value in values]
            found.append([*cells, str(tried)])
    return found


def _counts(counts: Sequence[int]) -> str:
    return " ".join(map(str, counts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--ratios", default="0.7,0.8,0.9")
    parser.add_argument("--match", action="store_true", help="also with the outputs matched: minutes a model and ratio")
    options = parser.parse_args()
    refits = ("calibrated", "match") if options.match else ("calibrated",)
    header = ["task", "seed", "removed", "ranking", "exchanged"]
    header += [f"points lost, {refit}, {which}" for refit in refits for which in ("ranking", "exchanged")]
    found = [row for folder in options.folders for row in rows(folder, options.ratios.split(","), refits)]
    print(table([*header, "divisions tried"], found))


if __name__ == "__main__":
    main()
