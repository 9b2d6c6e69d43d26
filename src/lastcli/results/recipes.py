"""Results about recipes: the plan that one makes, what is wrong with some, a first one for a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lastcli.results.base import Result, plain
from lastcli.results.inspect import ConfigValue

__all__ = [
    "CheckedRecipe",
    "DraftOption",
    "DraftRecipe",
    "RecipeCheckResult",
    "RecipeProblem",
    "RecipeShowResult",
]


@dataclass(frozen=True, kw_only=True)
class RecipeShowResult(Result):
    """The plan of a run, every value with its source.

    Attributes:
        recipe: the file, None where there is none.
        checkpoint, family: what would be opened; None where it cannot be.
        options: every option. `source`: flag, recipe, found (in this folder), bundled, family (what the model's family
            takes where nothing is said), method (the refit that goes with it) or default.
        model: the description of the model. `source`: flag, recipe, file, sidecar, tensors or assumed.
    """

    command: ClassVar[str] = "recipe-show"

    recipe: str | None
    checkpoint: str | None = None
    family: str | None = None
    options: Mapping[str, ConfigValue]
    model: Mapping[str, ConfigValue]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RecipeProblem:
    """One mistake. `line` counts from 1, None where no line says it; `code` is the exit code of a run with it."""

    key: str
    message: str
    code: int
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class CheckedRecipe:
    """One recipe; `said` are sentences about what was found and what was not looked at."""

    recipe: str
    problems: tuple[RecipeProblem, ...] = ()
    said: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def document(self) -> dict[str, Any]:
        """The recipe's JSON."""
        return {"recipe": self.recipe, "ok": self.ok, "problems": plain(self.problems), "said": list(self.said)}


@dataclass(frozen=True, kw_only=True)
class RecipeCheckResult(Result):
    """Recipes, and whether all of them are in order."""

    command: ClassVar[str] = "recipe-check"

    ok: bool
    recipes: tuple[CheckedRecipe, ...]


@dataclass(frozen=True, kw_only=True)
class DraftOption:
    """An option of the model. `settled`: whether the recipe says it, or leaves it as a comment to decide."""

    key: str
    value: Any
    source: str
    help: str
    choices: tuple[Any, ...] = ()
    settled: bool = True


@dataclass(frozen=True, kw_only=True)
class DraftRecipe(Result):
    """A first recipe for a checkpoint.

    Attributes:
        checkpoint: as the recipe says it, relative to its folder.
        about: what is in it, in words.
        naming: keys of the plan that say which model of the file is meant, or how it is read.
        map: what the description says beside the family and its options.
        data: the held-out split, None where there is none yet; `x`, `y`: what it must hold, in words.
        metric: what is measured where nothing is said; None where the model around the layers is not known.
        integers: whether inputs may be integers that want a scale.
        calibration: unlabelled inputs, None where there are none yet.
        methods: those that fit, the first for `prune`.
        out: where `prune` writes.
        schema_file: a schema beside the recipe, None where there is none.
    """

    command: ClassVar[str] = "recipe-init"

    checkpoint: str
    about: str
    family: str
    options: tuple[DraftOption, ...]
    map: Mapping[str, Any]
    naming: Mapping[str, Any]
    data: str | None
    calibration: str | None
    x: str
    y: str
    metric: str | None
    integers: bool
    methods: tuple[str, ...]
    out: str
    schema_file: str | None = None
