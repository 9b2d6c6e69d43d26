"""Frozen results of every verb, and the JSON document that each of them is.

`verbs` fills them, `report` shows them. `to_json()` gives the documented document of `last <command> --json`:
plain Python types, `"schema": "last.<command>/1"` first, numbers that are not finite as null. Accuracies, drops and
ratios are fractions; sizes are in bytes, times in seconds. Fields may be added to a schema; none changes its meaning.

A command loads the classes of its own results alone: each name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcli.lazily import named

if TYPE_CHECKING:
    from lastcli.results.anatomy import Anatomy, Costs, LayerAnatomy, Origin, SourceFile
    from lastcli.results.base import Result, UnstableStates, plain
    from lastcli.results.bench import BenchResult, BenchRun, StepSpeedup, StepTime
    from lastcli.results.certificates import LayerCertificate
    from lastcli.results.convert import ConvertResult
    from lastcli.results.evaluate import EvalResult
    from lastcli.results.gates import Gate
    from lastcli.results.inspect import ConfigValue, InspectResult, LayerInfo
    from lastcli.results.prune import Attempt, LayerPruned, Measured, PruneResult, SearchResult, SearchStep
    from lastcli.results.recipes import (
        CheckedRecipe,
        DraftOption,
        DraftRecipe,
        RecipeCheckResult,
        RecipeProblem,
        RecipeShowResult,
    )
    from lastcli.results.score import LayerScore, ScoreResult
    from lastcli.results.suggest import LikelyTensor, SuggestResult
    from lastcli.results.sweep import PublishedNumbers, PublishedRow, SweepResult, SweepRow
    from lastcli.results.verify import Check, VerifyResult

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

__getattr__ = named(
    __name__,
    {
        "anatomy": ("Anatomy", "Costs", "LayerAnatomy", "Origin", "SourceFile"),
        "base": ("Result", "UnstableStates", "plain"),
        "bench": ("BenchResult", "BenchRun", "StepSpeedup", "StepTime"),
        "certificates": ("LayerCertificate",),
        "convert": ("ConvertResult",),
        "evaluate": ("EvalResult",),
        "gates": ("Gate",),
        "inspect": ("ConfigValue", "InspectResult", "LayerInfo"),
        "prune": ("Attempt", "LayerPruned", "Measured", "PruneResult", "SearchResult", "SearchStep"),
        "recipes": (
            "CheckedRecipe",
            "DraftOption",
            "DraftRecipe",
            "RecipeCheckResult",
            "RecipeProblem",
            "RecipeShowResult",
        ),
        "score": ("LayerScore", "ScoreResult"),
        "suggest": ("LikelyTensor", "SuggestResult"),
        "sweep": ("PublishedNumbers", "PublishedRow", "SweepResult", "SweepRow"),
        "verify": ("Check", "VerifyResult"),
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
