"""`Plan`: the one list of options. Flags and recipes build it; it is written into what `last` writes.

A recipe is a YAML file with the field names below as keys (plus `title`, `source` and `paper`, which are for people).
A flag beats the recipe, the recipe beats the default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from lastcli.errors import InputError, LastError, UsageError
from lastcli.mappings import convert, load_mapping, suggestion
from lastcli.plan.drawn import draws, parse_drawn
from lastcli.plan.methods import BEST, METHODS, REFITS, Method, Refit, as_method, as_refit
from lastcli.plan.quantities import divides, parse_duration, parse_share
from lastcli.plan.ratios import parse_ratio, parse_ratios

__all__ = ["BUNDLED", "LAYOUTS", "Plan", "build_plan", "is_bundled", "load_recipe", "method_of", "names_no_file"]

BUNDLED = "bundled"


def is_bundled(named: str) -> bool:
    """Whether it names the demo model or one of its splits (`bundled:test`); a file of that name is `./bundled`."""
    return named == BUNDLED or named.startswith(f"{BUNDLED}:")


def names_no_file(named: str) -> bool:
    """Whether a split is named by what it is and not by where: bundled, a share of the data, or drawn inputs."""
    return is_bundled(named) or divides(named) or draws(named)


OUTPUTS = ("logits", "probabilities")
LAYOUTS = ("ragged", "padded", "uniform", "proportional")
_ABOUT = ("title", "source", "paper", "note")


def _option(default: Any, kind: Any, help: str, choices: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"kind": kind, "help": help, "choices": choices})


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
        "unlabelled inputs for refits, as --data, `bundled:calibration`, `split:0.5` of --data, or `drawn`",
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
    states: int | None = _option(None, int, "stored states to keep at most, instead of a ratio")
    max_drop: float | None = _option(None, float, "largest accepted drop; the largest ratio within it is searched")
    budget: str | None = _option(None, str, "time that --method best may take, such as 90s, 5m or 1h")
    significance: float | None = _option(None, float, "level at which a larger drop must be excluded, such as 0.05")
    fail_over: float | None = _option(
        None, float, "drop above which a sweep fails (exit 1); so does a model no better than the most frequent class"
    )
    fail_under: float | None = _option(
        None, float, "metric below which a sweep or eval fails (exit 1), in its own unit: 0.95 for an accuracy"
    )
    out: str | None = _option(None, "path", "where prune writes the smaller checkpoint, as --out")
    min_states: int = _option(1, int, "stored states every layer (multi-SISO: every channel) keeps at least")
    layout: str | None = _option(None, str, "state counts of the layers; ragged, but uniform for Mamba", LAYOUTS)
    states_multiple: int = _option(1, int, "keep a multiple of so many states in every index set, such as 8")
    allow_inexact: bool = _option(False, bool, "reduce layers whose norms run over the states (FalconMamba, Jamba)")
    compat: str | None = _option(None, str, "reproduce the published code, slips included", ("reference",))
    allow_unstable: bool = _option(False, bool, "keep states with |λ| >= 1, with --compat too (the default)")
    refuse_unstable: bool = _option(False, bool, "refuse a model with states of |λ| >= 1, which have no finite norm")
    match_output: bool = _option(False, bool, "after the refit, fit the model's outputs end to end (no labels)")
    steps: int = _option(1, int, "stages of one pruning; the states that go are chosen anew in each")
    seed: int | None = _option(
        None, int, "seed of whatever is random, else 0; given, --limit 1000 draws 1000 examples by their classes"
    )
    metric: str | None = _option(
        None,
        str,
        "such as accuracy, auroc, f1_macro, nll or mse; docs/tasks.md has the list for each task",
    )
    threshold: float | None = _option(
        None, float, "probability above which the answer is class 1 of two, or a label; 0.5 where not given"
    )
    warmup: int = _option(0, int, "first steps of a sequence output that the metric leaves out")
    scale: str | None = _option(None, str, "factor for integer inputs, such as 1/255")
    mean: str | None = _option(
        None, str, "taken from scaled inputs; one number, or one for each feature: 0.49,0.48,0.45"
    )
    std: str | None = _option(None, str, "what inputs are divided by then; one number, or one for each feature")
    columns: str | None = _option(None, str, "which columns or arrays of the data are what: `x=open,x=close,y=label`")
    limit: str | None = _option(None, str, "part of the held-out split: `2000` or `1000:3000`")
    calibration_limit: str | None = _option(None, str, "part of the calibration split")
    batch_size: int | None = _option(None, int, "examples in a batch")
    devices: str | None = _option(None, str, "local devices that share the examples of a batch, a number or `all`")
    distributed: bool = _option(
        False, bool, "one run of many processes (Slurm, Open MPI and Kubernetes are recognised)"
    )
    coordinator: str | None = _option(None, str, "where process 0 of such a run listens, `HOST:PORT`")
    num_processes: int | None = _option(None, int, "how many processes such a run has")
    process_id: int | None = _option(None, int, "which of them this is, from 0")
    resume: str | None = _option(None, "path", "keep finished rows in this file, and go on from those in it")
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


def method_of(plan: Plan) -> Method:
    """The plan's method, or LAST where neither the user nor the model's family names one."""
    return plan.method or METHODS["last"]


_FIELDS = {item.name: item for item in dataclasses.fields(Plan)}


# One of a kind given by the caller replaces the recipe's several.
_PLURALS = {"method": "methods", "refit": "refits", "ratio": "ratios"}


def build_plan(flags: Mapping[str, Any], recipe: Path | None = None) -> Plan:
    """The plan of a run: defaults, then the recipe, then every flag that is not None.

    Raises:
        UsageError: a flag's value is out of range, or options contradict each other.
        InputError: the recipe is damaged or names an unknown key.
    """
    values = load_recipe(recipe) if recipe is not None else {}
    for key, value in flags.items():
        if key not in _FIELDS:
            raise UsageError(f"There is no option {key!r}.{suggestion(key, _FIELDS)}")
        if value is not None:
            values[key] = _value(key, value, f"--{key.replace('_', '-')}", UsageError)
            if key in _PLURALS and flags.get(_PLURALS[key]) is None:
                values.pop(_PLURALS[key], None)
    # the last of `ratio`, `states`, `max_drop` that is more explicit wins: a flag replaces the recipe's goal
    goals = [key for key in ("ratio", "states", "max_drop") if flags.get(key) is not None]
    if len(goals) > 1 and not ("max_drop" in goals and flags.get("ratios") is not None):
        raise UsageError(f"--{goals[0].replace('_', '-')} and --{goals[1].replace('_', '-')} exclude each other.")
    if goals:
        for key in ("ratio", "states", "max_drop"):
            if key not in goals:
                values.pop(key, None)
    # one source of calibration: a flag replaces the recipe's other one
    for key, other in (("calibration", "layer_inputs"), ("layer_inputs", "calibration")):
        if flags.get(key) is not None and flags.get(other) is None:
            values.pop(other, None)
    plan = Plan(**values)
    _check(plan)
    return plan


def load_recipe(path: Path) -> dict[str, Any]:
    """The fields a recipe sets; paths in it are relative to its folder.

    Raises:
        InputError: unknown key (with a suggestion), wrong kind of value, or a damaged file.
    """
    values: dict[str, Any] = {}
    for key, raw in load_mapping(path).items():
        if key in _ABOUT:
            continue
        if key not in _FIELDS:
            raise InputError(f"{path}: unknown key {key!r}.{suggestion(key, [*_FIELDS, *_ABOUT])}")
        if raw is None:
            continue
        value = _value(key, raw, f"{path}: {key}", InputError)
        if _FIELDS[key].metadata["kind"] == "path" and not names_no_file(value):
            value = str(path.parent / value)
        values[key] = value
    return values


def _value(key: str, raw: Any, what: str, wrong: type[LastError]) -> Any:
    kind, choices = _FIELDS[key].metadata["kind"], _FIELDS[key].metadata["choices"]
    if kind == "mapping":
        if not isinstance(raw, Mapping):
            raise wrong(f"{what} must be a mapping of option: value.")
        return dict(raw)
    if kind == "path":
        return convert(raw, str, what, wrong)
    if kind in ("ratio", "ratios"):
        try:
            return parse_ratio(raw) if kind == "ratio" else parse_ratios(raw)
        except UsageError as error:
            raise wrong(f"{what}: {error}") if wrong is InputError else error from None
    if kind in _NAMED:
        return _named(raw, kind, what, wrong)
    value = convert(raw, kind, what, wrong)
    if choices and value not in choices:
        raise wrong(f"{what}: there is no {key} {value!r}.{suggestion(value, choices)}")
    return value


_NAMED: dict[str, Callable[[Any], Method | Refit]] = {
    "method": as_method,
    "methods": as_method,
    "refit": as_refit,
    "refits": as_refit,
}


def _named(raw: Any, kind: str, what: str, wrong: type[LastError]) -> Any:
    """A method or refit, or for the plural kinds one or several of them without repeats."""
    read = _NAMED[kind]
    try:
        if not kind.endswith("s"):
            return read(raw)
        items = [part.strip() for part in raw.split(",")] if isinstance(raw, str) else raw
        return tuple(dict.fromkeys(read(item) for item in (items if isinstance(items, Iterable) else [items])))
    except UsageError as error:
        raise wrong(f"{what}: {error}") from None


def _check(plan: Plan) -> None:
    def positive(key: str, least: float) -> None:
        value = getattr(plan, key)
        if value is not None and value < least:
            raise UsageError(f"--{key.replace('_', '-')} must be at least {least}, not {value}.")

    positive("states", 1)
    positive("steps", 1)
    positive("min_states", 0)
    positive("states_multiple", 1)
    positive("max_drop", 0)
    positive("batch_size", 1)
    positive("warmup", 0)
    positive("seed", 0)
    _check_place(plan)
    if plan.allow_unstable and plan.refuse_unstable:
        raise UsageError("--allow-unstable and --refuse-unstable exclude each other.")
    if plan.calibration is not None and divides(plan.calibration):
        parse_share(plan.calibration)
    if plan.calibration is not None and draws(plan.calibration):
        parse_drawn(plan.calibration)
    if plan.budget is not None:
        parse_duration(plan.budget)
    _check_best(plan)
    if plan.calibration is not None and plan.layer_inputs is not None:
        raise UsageError("--calibration and --layer-inputs exclude each other.")
    if plan.outputs is not None and plan.forward is None:
        raise UsageError("--outputs says what your own forward pass returns; give it with --forward.")
    if plan.threshold is not None and not 0 < plan.threshold < 1:
        raise UsageError(f"--threshold is a probability between 0 and 1, such as 0.3, not {plan.threshold}.")
    if plan.significance is not None and not 0 < plan.significance < 1:
        raise UsageError(f"--significance must lie between 0 and 1, such as 0.05, not {plan.significance}.")


def _check_place(plan: Plan) -> None:
    """The options that say where a run takes place."""
    if plan.devices is not None and plan.devices != "all" and not (plan.devices.isdecimal() and int(plan.devices) >= 1):
        raise UsageError(f"--devices must be a number of devices or all, not {plan.devices!r}.")
    given = (plan.coordinator, plan.num_processes, plan.process_id)
    if any(item is not None for item in given) and None in given:
        raise UsageError("--coordinator, --num-processes and --process-id go together; give all three or none.")
    if plan.coordinator is None or plan.num_processes is None or plan.process_id is None:
        return
    host, _, port = plan.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UsageError(f"--coordinator must be HOST:PORT, not {plan.coordinator!r}.")
    if not 0 <= plan.process_id < plan.num_processes:
        raise UsageError(
            f"--process-id must lie between 0 and {plan.num_processes - 1} where --num-processes is "
            f"{plan.num_processes}, not {plan.process_id}."
        )


def _check_best(plan: Plan) -> None:
    """`--method best` decides method, refit and steps itself, and needs a bound to decide by."""
    if plan.methods is not None and BEST in plan.methods:
        raise UsageError(
            "--method best searches a single model; it goes with `last prune --max-drop`, not with a sweep."
        )
    if plan.method is not BEST:
        if plan.budget is not None:
            raise UsageError("--budget bounds the time of --method best; name that method, or leave --budget out.")
        return
    if plan.max_drop is None:
        raise UsageError(
            "--method best keeps what removes most within a drop: give --max-drop 0.01 and --data, not a ratio."
        )
    chosen = [
        f"--{key.replace('_', '-')}"
        for key, unset in (("refit", None), ("steps", 1), ("match_output", False), ("compat", None))
        if getattr(plan, key) != unset
    ]
    if chosen:
        raise UsageError(f"--method best chooses refits and stages itself; leave {chosen[0]} out.")
