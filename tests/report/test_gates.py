"""Gates in words, as JUnit, and as annotations of a job."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from lastcli.report import print_result
from lastcli.report.gates import as_junit, cases_of, failures_of
from lastcli.report.github import as_plain_log, error_command
from lastcli.results import Gate
from tests.report import samples

GATES = (
    Gate(kind="baseline", ok=True),
    Gate(kind="fail_over", ok=False, limit=0.01, found=0.07, method="last", refit="h2", ratio=0.5),
    Gate(kind="fail_under", ok=False, limit=0.95, found=0.91, method="last", refit="none", ratio=0.5),
    Gate(kind="max_drop", ok=True, limit=0.02, found=0.01, method="last", refit="none", ratio=0.2),
    Gate(kind="max_drop", ok=False, limit=0.02),
)


def suite(document: bytes) -> ElementTree.Element:
    root = ElementTree.fromstring(document)
    assert root.tag == "testsuites"
    (found,) = root
    assert (root.attrib, found.tag) == (found.attrib, "testsuite")
    return found


def test_one_case_a_gate_with_what_was_found_and_allowed() -> None:
    found = suite(as_junit(samples.sweep(gates=GATES, passed=False)))
    assert (found.get("tests"), found.get("failures")) == ("5", "3")
    failures = {case.get("name"): case.find("failure") for case in found}
    assert failures["full model"] is None
    assert (
        failures["last + h2 at 50%: --fail-over"].get("message")
        == "s5_digits.msgpack: 7.0 points lost, 1 point allowed"
    )  # type: ignore[union-attr]
    below = "s5_digits.msgpack: accuracy 91.0%, at least 95.0% is asked for"
    assert failures["last at 50%: --fail-under"].text == below  # type: ignore[union-attr]
    assert failures["last at 20%: --max-drop"] is None
    assert failures["--max-drop"].text == "s5_digits.msgpack: no ratio stays within 2 points"  # type: ignore[union-attr]


def test_without_gates_every_row_and_every_check_is_a_case() -> None:
    assert [case.name for case in cases_of(samples.sweep())][:2] == ["last at 0%", "last at 10%"]
    assert not failures_of(samples.sweep())
    assert failures_of(samples.verify(ok=False)) == ["equal outputs: largest difference 3.1e-06, allowed 1e-05"]
    assert [case.ok for case in cases_of(samples.verify())] == [True, True]
    assert cases_of(samples.evaluation())[0].detail == "98.0%"
    assert cases_of(samples.bench()) == []


def test_names_from_files_leave_the_document_well_formed() -> None:
    document = as_junit(samples.sweep(checkpoint='a\x1b]<&>"\ud800\x00', gates=GATES))
    assert "\\x1b]<&>" in suite(document)[0][0].text  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("50% lost\r\nx", "::error title=last%3A a%2Cb::50%25 lost\\r\\nx"),
        ("plain", "::error title=last%3A a%2Cb::plain"),
    ],
)
def test_an_annotation_is_one_line_whatever_it_says(text: str, line: str) -> None:
    assert error_command(text, "last: a,b") == line


def test_no_line_of_a_log_is_taken_for_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        as_plain_log("a\n  ::set-env name=x::y\n##[group]z\na ::b")
        == "a\n  \\x3a:set-env name=x::y\n\\x23#[group]z\na ::b"
    )
    result = samples.sweep(checkpoint="::stop-commands::x", chosen=None, max_drop=None)
    print_result(result, log=True)
    assert capsys.readouterr().out.startswith("\\x3a:stop-commands::x: accuracy")
    print_result(result)
    assert capsys.readouterr().out.startswith("::stop-commands::x")
