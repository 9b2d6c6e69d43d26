"""`recipe check`: what is wrong with recipes, all of it at once, before anything runs.

The text first: keys, values, what contradicts itself, the options of the model's family. Then, unless it is told not
to, the files: that they are there, that the model is the one described, that methods and refits suit it, and that the
splits fit it. No layer is reduced and no example is passed through the model; code that a recipe names is not run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lastcli.containers.inputs import is_file, is_folder
from lastcli.errors import ExitCode, LastError, UnsupportedModelError, UsageError
from lastcli.families import family_named
from lastcli.families.mapped import MAP_KEYS
from lastcli.mappings import key_lines
from lastcli.model.description import option_value
from lastcli.plan import BEST, BUNDLED, Plan, is_bundled, names_no_file
from lastcli.plan.checks import check_plan
from lastcli.plan.drawn import draws
from lastcli.plan.quantities import divides
from lastcli.plan.recipes import read_recipe
from lastcli.results import CheckedRecipe, RecipeCheckResult, RecipeProblem
from lastcli.verbs.shared.session import Session

__all__ = ["check"]

Found = Iterator[tuple[str, str, ExitCode]]


def check(paths: Sequence[Path], *, files: bool = True) -> RecipeCheckResult:
    """Every mistake of every recipe.

    Args:
        files: also look at the files that they name.
    """
    recipes = tuple(_checked(path, files=files) for path in paths)
    return RecipeCheckResult(ok=all(recipe.ok for recipe in recipes), recipes=recipes)


def _checked(path: Path, *, files: bool) -> CheckedRecipe:
    said: list[str] = []
    try:
        values, mistakes = read_recipe(path)
        lines = key_lines(path)
    except LastError as error:
        problem = RecipeProblem(key="", message=_without(str(error), path), code=ExitCode.INPUT)
        return CheckedRecipe(recipe=str(path), problems=(problem,))
    found = [(one.key, one.sentence, ExitCode.INPUT) for one in mistakes]
    found += _in_the_model(values.get("model") or {})
    if not found:
        plan = Plan(**values)
        found += _in_the_plan(plan)
        if files and not found:
            found += _in_the_files(plan, said)
        elif not files:
            said.append("Files were not looked at.")
    problems = [
        RecipeProblem(key=key, message=_without(sentence, path), code=code, line=_line(key, lines))
        for key, sentence, code in found
    ]
    problems.sort(key=lambda problem: problem.line or 0)
    return CheckedRecipe(recipe=str(path), problems=tuple(problems), said=tuple(said))


def _without(sentence: str, path: Path) -> str:
    """The sentence without the name of the recipe, which stands before it already."""
    return sentence.removeprefix(f"{path}: ")


def _line(key: str, lines: Mapping[tuple[str, ...], int]) -> int | None:
    place = tuple(key.split(".", 1))
    return lines.get(place, lines.get(place[:1]))


def _in_the_plan(plan: Plan) -> Found:
    try:
        check_plan(plan)
    except LastError as error:
        named = [item.name for item in dataclasses.fields(plan) if _typed(item.name) in str(error).split()]
        yield (named[0] if named else ""), str(error), ExitCode.INPUT


def _typed(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _in_the_model(said: Mapping[str, Any]) -> Found:
    """Keys and values below `model`, of a family that is named there."""
    if "family" not in said:
        return
    try:
        family = family_named(str(said["family"]))
    except UsageError as error:
        yield "model.family", str(error), ExitCode.INPUT
        return
    for key, raw in said.items():
        if key == "family" or key in MAP_KEYS:
            continue
        try:
            option_value(family, key, raw, "model")
        except LastError as error:
            yield f"model.{key}", str(error), ExitCode.INPUT


def _in_the_files(plan: Plan, said: list[str]) -> Found:
    """What only the files show, in the order in which a run would meet it."""
    missing = list(_missing(plan))
    yield from missing
    with Session(plan.alone(), note=said.append) as session:
        closed = _why_closed(plan, missing)
        if closed:
            said.append(closed)
            yield from _splits(session, said, fitted=False)
            return
        try:
            checkpoint = session.checkpoint
        except LastError as error:
            yield "checkpoint", str(error), _code(error)
            return
        said.append(f"Model: {checkpoint.family.title}, {len(checkpoint.layers)} layers, {checkpoint.states} states.")
        yield from _reductions(session)
        yield from _splits(session, said, fitted=plan.forward is None)


def _why_closed(plan: Plan, missing: Sequence[tuple[str, str, ExitCode]]) -> str:
    """Why the checkpoint is not opened, as a sentence; empty where it is."""
    if plan.checkpoint is None:
        return "No checkpoint is named, so nothing was held against a model."
    if plan.like is not None:
        return "The checkpoint was not opened: `like` names code, which a check does not run."
    return "The checkpoint was not opened." if missing else ""


def _code(error: LastError) -> ExitCode:
    """A recipe with an option that contradicts its files is a bad input file, and no wrong use of the command."""
    return ExitCode.UNSUPPORTED if isinstance(error, UnsupportedModelError) else ExitCode.INPUT


def _missing(plan: Plan) -> Found:
    for key in ("checkpoint", "layer_inputs"):
        named = getattr(plan, key)
        if named is not None and not is_bundled(named) and not _is_there(named):
            yield key, f"{key}: {named} is not there; a path is relative to the recipe's folder.", ExitCode.INPUT
    for key in ("forward", "like"):
        place = (getattr(plan, key) or "").rpartition(":")[0]
        if place.endswith(".py") and not is_file(Path(place)):
            yield key, f"{key}: {place} is not there; it is looked for from the working folder.", ExitCode.INPUT
    folder = None if plan.out is None else Path(plan.out).absolute().parent
    if folder is not None and not is_folder(folder):
        yield "out", f"out: the folder {folder} is not there; create it first.", ExitCode.INPUT


def _is_there(named: str) -> bool:
    return is_file(Path(named)) or is_folder(Path(named))


def _reductions(session: Session) -> Found:
    """Methods and refits that do not suit the model, or need calibration inputs that are not there."""
    from lastcli.reduction import feasible
    from lastcli.verbs.sweep import runs_of

    plan = session.plan
    if plan.method is BEST:
        return
    try:
        runs, _ = runs_of(session)
        for method, refit in dict.fromkeys((method, refit) for method, refit, _ in runs):
            feasible.check(session.checkpoint, method, refit, plan, calibrated=session.examples.has_calibration)
        feasible.require_exact(session.checkpoint, plan)
    except LastError as error:
        key = next((key for key in ("refits", "refit", "methods", "method") if getattr(plan, key) is not None), "")
        yield key, str(error), _code(error)


def _splits(session: Session, said: list[str], *, fitted: bool) -> Found:
    """The held-out split and calibration inputs: that they can be read and, if `fitted`, that the model takes them."""
    plan = session.plan
    if plan.data is None and plan.checkpoint != BUNDLED:
        said.append("No data is named yet: a sweep needs some.")
    read = []
    for key in ("data", "calibration"):
        named = getattr(plan, key)
        if named is None or (draws(named) and not fitted):  # what is drawn, the model decides
            continue
        if not names_no_file(named) and _runs_code(named):
            said.append(f"{key}: {named} is code, which a check does not run.")
            continue
        try:
            examples = _read(session, key, fitted=fitted)
        except LastError as error:
            yield key, f"{key}: {error}", _code(error)
            continue
        read.append(key)
        if not names_no_file(named):  # what else is read says so itself
            said.append(f"{key.capitalize()}: {examples} examples.")
    if fitted and "data" in read:
        yield from _metric(session)


def _metric(session: Session) -> Found:
    from lastcli.verbs.shared.measuring import metric_of

    try:
        metric_of(session)
    except LastError as error:
        yield "metric" if session.plan.metric is not None else "data", str(error), _code(error)


def _runs_code(named: str) -> bool:
    from lastcli.evaluation.locations import parse_location
    from lastcli.evaluation.readers import runs_code

    location = parse_location(named)
    return runs_code(location.path, location.part)


def _read(session: Session, key: str, *, fitted: bool) -> int:
    """How many examples there are."""
    if fitted:
        split = session.examples.split if key == "data" else session.examples.calibration
    elif key == "data" or divides(session.plan.calibration):
        split = session.examples.inputs
    else:
        plan = session.plan
        split = Session(plan.replace(data=plan.calibration, limit=plan.calibration_limit)).examples.inputs
    return 0 if split is None else split.n
