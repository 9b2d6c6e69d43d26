"""Which options each verb takes, once for the command line and for Python.

Every name is a field of `Plan`; the types are what a Python user may pass. The order is that of the flags in `--help`.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from lastcli.plan.methods import Criterion, Method
    from lastcli.plan.refits import Refit

__all__ = [
    "PLACE",
    "BenchOptions",
    "ConvertOptions",
    "EvaluateOptions",
    "InspectOptions",
    "PruneOptions",
    "ScoreOptions",
    "SweepOptions",
    "VerifyOptions",
    "fields_of",
]

Ratio = Decimal | float | str


class _Data(TypedDict, total=False):
    data: str | Path
    limit: str | int
    scale: str | float
    mean: str | float
    std: str | float
    columns: str


class _Naming(TypedDict, total=False):
    name: str
    like: str


class _Carrying(_Naming, total=False):
    keep_others: bool


class _Devices(TypedDict, total=False):
    devices: str | int


class _Place(_Devices, total=False):
    distributed: bool
    coordinator: str
    num_processes: int
    process_id: int


class _Measuring(_Data, total=False):
    metric: str
    threshold: float
    warmup: int
    batch_size: int
    forward: str
    outputs: str


class _Comparing(_Data, _Devices, total=False):
    batch_size: int
    seed: int


class _Calibrating(TypedDict, total=False):
    calibration: str | Path
    calibration_limit: str | int
    layer_inputs: str | Path


class _Reducing(_Calibrating, total=False):
    min_states: int
    layout: str
    states_multiple: int
    allow_inexact: bool
    compat: str
    allow_unstable: bool
    refuse_unstable: bool
    match_output: bool
    steps: int
    seed: int


class _Ranking(TypedDict, total=False):
    method: str | Method | Criterion
    compat: str
    seed: int
    allow_unstable: bool
    refuse_unstable: bool
    calibration: str | Path
    calibration_limit: str | int
    layer_inputs: str | Path
    batch_size: int


class _Goal(TypedDict, total=False):
    ratio: Ratio
    states: int
    max_drop: float
    budget: str
    significance: float
    method: str | Method | Criterion
    refit: str | Refit


class _Comparison(TypedDict, total=False):
    ratios: str | Sequence[Ratio]
    methods: str | Sequence[str | Method | Criterion]
    refits: str | Sequence[str | Refit]
    max_drop: float
    significance: float
    fail_over: float
    fail_under: float


class _Resuming(TypedDict, total=False):
    resume: str | Path


class InspectOptions(_Naming, total=False):
    """Of `inspect`."""


class ScoreOptions(_Ranking, _Place, _Naming, total=False):
    """Of `score`."""


class PruneOptions(_Goal, _Resuming, _Reducing, _Measuring, _Place, _Carrying, total=False):
    """Of `prune`."""


class SweepOptions(_Comparison, _Resuming, _Reducing, _Measuring, _Place, _Naming, total=False):
    """Of `sweep`."""


class EvaluateOptions(_Measuring, _Place, _Naming, total=False):
    """Of `evaluate`, the command `eval`."""

    seed: int
    fail_under: float


class VerifyOptions(_Comparing, _Calibrating, _Naming, total=False):
    """Of `verify`."""


class ConvertOptions(_Carrying, total=False):
    """Of `convert`."""


class BenchOptions(_Comparing, _Naming, total=False):
    """Of `bench`."""


def fields_of(options: type) -> tuple[str, ...]:
    """The fields of `Plan` in one of these, in the order of the flags."""
    return tuple(options.__annotations__)


# Options that say where a run takes place; no result depends on them, so no recipe that a run writes has them.
PLACE = fields_of(_Place)
