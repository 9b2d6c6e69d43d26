"""Gates in words, and as the test cases of a JUnit document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from lastcli.report.measures import drop_text, metric_text
from lastcli.report.text import points_text, ratio_text, safe_text
from lastcli.results import EvalResult, Gate, Result, SweepResult, SweepRow, VerifyResult

__all__ = ["Case", "as_junit", "cases_of", "failures_of"]


@dataclass(frozen=True)
class Case:
    """One demand: its name, whether it is met, and what was found."""

    name: str
    ok: bool
    detail: str


def cases_of(result: Result) -> list[Case]:
    """Every gate of a result; where there is none, every row of a sweep, which then only says its value."""
    if isinstance(result, VerifyResult):
        return [Case(check.name, check.ok, check.detail) for check in result.checks]
    if not isinstance(result, SweepResult | EvalResult):
        return []
    if result.gates:
        return [_case(result, gate) for gate in result.gates]
    if isinstance(result, EvalResult):
        return [Case(result.metric, True, metric_text(result.metric, result.value, result.n))]
    return [Case(_place(row), True, _row_text(result, row)) for row in result.rows]


def failures_of(result: Result) -> list[str]:
    """A sentence for each demand that is not met."""
    return [f"{case.name}: {case.detail}" for case in cases_of(result) if not case.ok]


def as_junit(result: Result) -> bytes:
    """The gates as a JUnit XML document, one test case each."""
    cases = cases_of(result)
    name = f"last {result.command}"
    failed = str(sum(not case.ok for case in cases))
    counts = {"tests": str(len(cases)), "failures": failed, "errors": "0", "skipped": "0"}
    suite = ElementTree.Element("testsuite", {"name": name} | counts)
    subject = str(getattr(result, "checkpoint", getattr(result, "pruned", "")))
    for case in cases:
        found = ElementTree.SubElement(
            suite, "testcase", {"classname": name, "name": safe_text(case.name), "time": "0"}
        )
        said = f"{safe_text(subject)}: {safe_text(case.detail)}"
        if case.ok:
            ElementTree.SubElement(found, "system-out").text = said
        else:
            ElementTree.SubElement(found, "failure", message=said, type="gate").text = said
    root = ElementTree.Element("testsuites", {"name": name} | counts)
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _case(result: SweepResult | EvalResult, gate: Gate) -> Case:
    if gate.kind == "baseline":
        beats = "it beats an answer that looks at no input"
        return Case("full model", gate.ok, gate.said or beats)
    if gate.kind == "fail_under":
        shown = metric_text(result.metric, gate.found, result.n)
        floor = metric_text(result.metric, gate.limit, result.n)
        return Case(_named(gate, "--fail-under"), gate.ok, f"{result.metric} {shown}, at least {floor} is asked for")
    allowed = points_text(result.metric, gate.limit or 0.0)
    if gate.kind == "max_drop":
        if gate.found is None:
            return Case("--max-drop", gate.ok, f"no ratio stays within {allowed}")
        return Case(_named(gate, "--max-drop"), gate.ok, f"{_drop(result, gate)}, {allowed} allowed")
    return Case(_named(gate, "--fail-over"), gate.ok, f"{_drop(result, gate)}, {allowed} allowed")


def _drop(result: SweepResult | EvalResult, gate: Gate) -> str:
    what = "points lost" if result.metric in ("accuracy", "fit") else "rise"
    return f"{drop_text(result.metric, gate.found, result.n)} {what}"


def _named(gate: Gate, flag: str) -> str:
    return flag if gate.method is None else f"{_place(gate)}: {flag}"


def _place(of: Any) -> str:
    refit = "" if of.refit in (None, "none") else f" + {of.refit}"
    return f"{of.method}{refit} at {ratio_text(of.ratio)}"


def _row_text(result: SweepResult, row: SweepRow) -> str:
    value = metric_text(result.metric, row.value, result.n)
    return f"{result.metric} {value}, {drop_text(result.metric, row.drop, result.n)} lost, {row.states} states"
