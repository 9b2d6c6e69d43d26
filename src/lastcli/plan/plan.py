"""`Plan`: the one list of options. Flags and recipes build it; it is written into what `last` writes.

A recipe is a YAML file with the field names below as keys (plus `title`, `source`, `note` and `paper`, which are
for people). A flag beats the recipe, the recipe beats the default. docs/recipes.md shows how to write one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from lastcli.plan.drawn import draws
from lastcli.plan.methods import METHODS, Method
from lastcli.plan.options import PLACE
from lastcli.plan.published import Published
from lastcli.plan.quantities import divides
from lastcli.plan.refits import REFITS, Refit

__all__ = ["ABOUT", "BUNDLED", "LAYOUTS", "Plan", "is_bundled", "method_of", "names_no_file"]

BUNDLED = "bundled"


def is_bundled(named: str) -> bool:
    """Whether it names the demo model or one of its splits (`bundled:test`); a file of that name is `./bundled`."""
    return named == BUNDLED or named.startswith(f"{BUNDLED}:")


def names_no_file(named: str) -> bool:
    """Whether a split is named by what it is and not by where: bundled, a share of the data, or drawn inputs."""
    return is_bundled(named) or divides(named) or draws(named)


OUTPUTS = ("logits", "probabilities")
LAYOUTS = ("ragged", "padded", "uniform", "proportional")
# Keys of a recipe that are for people.
ABOUT = ("title", "source", "paper", "note")


def _option(default: Any, kind: Any, help: str, choices: tuple[str, ...] = (), least: int | None = None) -> Any:
    """A field with all that flags, recipes, their schema and the pages need to know; `least` is allowed itself."""
    return field(default=default, metadata={"kind": kind, "help": help, "choices": choices, "least": least})


@dataclass(frozen=True)
class Plan:
    """Everything a run depends on. Fields left None are decided by the pipeline, which says what it took."""

    checkpoint: str | None = _option(None, "path", "checkpoint file or folder, or `bundled`")
    data: str | None = _option(
        None, "path", "held-out split: a file or folder (docs/data.md), `module:function`, or `bundled:test`"
    )
    calibration: str | None = _option(
        None,
        "path",
        "unlabelled inputs for refits, as --data; `bundled:calibration`, `split:0.5` of it, or `drawn`",
    )
    layer_inputs: str | None = _option(
        None, "path", "layer inputs that lastcli.capture recorded (.safetensors), instead of --calibration"
    )
    model: Mapping[str, Any] = _option(None, "mapping", "description of the model")
    method: Method | None = _option(
        None, "method", "which states go first (last, but for Mamba); best tries all", tuple(METHODS)
    )
    methods: tuple[Method, ...] | None = _option(None, "methods", "methods of a sweep, compared side by side")
    refit: Refit | None = _option(None, "refit", "how the read-out is re-solved", tuple(REFITS))
    refits: tuple[Refit, ...] | None = _option(None, "refits", "refits of a sweep")
    ratio: Decimal | None = _option(None, "ratio", "share of the stored states to remove")
    ratios: tuple[Decimal, ...] | None = _option(None, "ratios", "ratios of a sweep")
    states: int | None = _option(None, int, "stored states to keep at most, instead of a ratio", least=1)
    max_drop: float | None = _option(
        None, float, "largest accepted drop; the largest ratio within it is searched", least=0
    )
    budget: str | None = _option(None, str, "time that --method best may take, such as 90s, 5m or 1h")
    significance: float | None = _option(None, float, "level at which a larger drop must be excluded, such as 0.05")
    fail_over: float | None = _option(
        None, float, "drop above which a sweep fails (exit 1); so does a model no better than the most frequent class"
    )
    fail_under: float | None = _option(
        None, float, "metric below which a sweep or eval fails (exit 1), in its own unit: 0.95 for an accuracy"
    )
    published: Published | None = _option(
        None, "published", "numbers of a paper, shown beside the measured ones: source, metric, full, methods"
    )
    out: str | None = _option(None, "path", "where prune writes the smaller checkpoint")
    min_states: int = _option(1, int, "stored states every layer (multi-SISO: every channel) keeps at least", least=0)
    layout: str | None = _option(None, str, "state counts of the layers; ragged, but uniform for Mamba", LAYOUTS)
    states_multiple: int = _option(1, int, "keep a multiple of so many states in every index set, such as 8", least=1)
    allow_inexact: bool = _option(False, bool, "reduce layers whose norms run over the states (FalconMamba, Jamba)")
    compat: str | None = _option(None, str, "reproduce the published code, slips included", ("reference",))
    allow_unstable: bool = _option(False, bool, "keep states with |λ| >= 1, with --compat too (the default)")
    refuse_unstable: bool = _option(False, bool, "refuse a model with states of |λ| >= 1, which have no finite norm")
    match_output: bool = _option(False, bool, "after the refit, fit the model's outputs end to end (no labels)")
    steps: int = _option(1, int, "stages of one pruning; the states that go are chosen anew in each", least=1)
    seed: int | None = _option(
        None,
        int,
        "seed of whatever is random, else 0; given, --limit 1000 draws 1000 examples by their classes",
        least=0,
    )
    metric: str | None = _option(
        None,
        str,
        "such as accuracy, auroc, f1_macro, nll or mse; docs/tasks.md has the list for each task",
    )
    threshold: float | None = _option(
        None, float, "probability above which the answer is class 1 of two, or a label; 0.5 where not given"
    )
    warmup: int = _option(0, int, "first steps of a sequence output that the metric leaves out", least=0)
    scale: str | None = _option(None, str, "factor for integer inputs, such as 1/255")
    mean: str | None = _option(
        None, str, "taken from scaled inputs; one number, or one for each feature: 0.49,0.48,0.45"
    )
    std: str | None = _option(None, str, "what inputs are divided by then; one number, or one for each feature")
    columns: str | None = _option(None, str, "which columns or arrays of the data are what: `x=open,x=close,y=label`")
    limit: str | None = _option(None, str, "part of the held-out split: `2000` or `1000:3000`")
    calibration_limit: str | None = _option(None, str, "part of the calibration split")
    batch_size: int | None = _option(None, int, "examples in a batch", least=1)
    devices: str | None = _option(None, str, "local devices that share the examples of a batch, a number or `all`")
    distributed: bool = _option(
        False, bool, "one run of many processes (Slurm, Open MPI and Kubernetes are recognised)"
    )
    coordinator: str | None = _option(None, str, "where process 0 of such a run listens, `HOST:PORT`")
    num_processes: int | None = _option(None, int, "how many processes such a run has")
    process_id: int | None = _option(None, int, "which of them this is, from 0")
    resume: str | None = _option(
        None, "path", "keep finished rows or shards by this file, matching of outputs beside it, and go on from there"
    )
    forward: str | None = _option(None, str, "your own forward pass, `module:function` or `file.py:function`")
    outputs: str | None = _option(
        None, str, "what your forward pass returns; where not given, its first outputs show it", OUTPUTS
    )
    name: str | None = _option(None, str, "which model, where a file holds several or averaged copies of one")
    keep_others: bool = _option(False, bool, "carry the other models of the file as they are (else they are left out)")
    like: str | None = _option(
        None, str, "your own function that gives the module an .eqx file was saved from, `module:function`"
    )

    def replace(self, **changes: Any) -> Plan:
        """A copy with the given fields changed."""
        return dataclasses.replace(self, **changes)

    def alone(self) -> Plan:
        """A copy for one process on its own."""
        return self.replace(**{item.name: item.default for item in dataclasses.fields(self) if item.name in PLACE})


def method_of(plan: Plan) -> Method:
    """The plan's method, or LAST where neither the user nor the model's family names one."""
    return plan.method or METHODS["last"]
