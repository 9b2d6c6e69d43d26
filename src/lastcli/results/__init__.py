"""Frozen results of every verb, and the JSON document that each of them is.

`verbs` fills them, `report` shows them. `to_json()` gives the documented document of `last <command> --json`:
plain Python types, `"schema": "last.<command>/1"` first, numbers that are not finite as null. Accuracies, drops and
ratios are fractions; sizes are in bytes, times in seconds. Fields may be added to a schema; none changes its meaning.
"""

from __future__ import annotations

from lastcli.results.anatomy import Anatomy, Costs, LayerAnatomy, Origin, SourceFile
from lastcli.results.base import Result, UnstableStates, plain
from lastcli.results.gates import Gate
from lastcli.results.measures import (
    BenchResult,
    BenchRun,
    Check,
    EvalResult,
    LayerCertificate,
    PublishedNumbers,
    PublishedRow,
    StepSpeedup,
    StepTime,
    SweepResult,
    SweepRow,
    VerifyResult,
)
from lastcli.results.models import (
    Attempt,
    ConfigValue,
    ConvertResult,
    InspectResult,
    LayerInfo,
    LayerPruned,
    LayerScore,
    LikelyTensor,
    Measured,
    PruneResult,
    ScoreResult,
    SearchResult,
    SearchStep,
    SuggestResult,
)
from lastcli.results.recipes import (
    CheckedRecipe,
    DraftOption,
    DraftRecipe,
    RecipeCheckResult,
    RecipeProblem,
    RecipeShowResult,
)

__all__ = [
    "Anatomy",
    "Attempt",
    "BenchResult",
    "BenchRun",
    "Check",
    "CheckedRecipe",
    "ConfigValue",
    "ConvertResult",
    "Costs",
    "DraftOption",
    "DraftRecipe",
    "EvalResult",
    "Gate",
    "InspectResult",
    "LayerAnatomy",
    "LayerCertificate",
    "LayerInfo",
    "LayerPruned",
    "LayerScore",
    "LikelyTensor",
    "Measured",
    "Origin",
    "PruneResult",
    "PublishedNumbers",
    "PublishedRow",
    "RecipeCheckResult",
    "RecipeProblem",
    "RecipeShowResult",
    "Result",
    "ScoreResult",
    "SearchResult",
    "SearchStep",
    "SourceFile",
    "StepSpeedup",
    "StepTime",
    "SuggestResult",
    "SweepResult",
    "SweepRow",
    "UnstableStates",
    "VerifyResult",
    "plain",
]
