"""The numbers of a paper beside the measured ones: in the table, below it, and for programs."""

from __future__ import annotations

import csv
import dataclasses
import io

import pytest

from lastcli.report import as_csv, as_markdown, as_text
from lastcli.report.html import as_html
from lastcli.results import PublishedNumbers, PublishedRow, SweepResult, SweepRow


def row(method, ratio, value, refit="none", published=None):
    return SweepRow(
        method=method,
        refit=refit,
        ratio=ratio,
        states=int(100 * (1 - ratio)),
        value=value,
        drop=0.98 - value,
        ci_low=None,
        ci_high=None,
        layers=(10,),
        parameters=1000,
        published=published,
    )


NUMBERS = PublishedNumbers(
    source="a paper",
    metric="accuracy",
    full=0.99,
    rows=(
        PublishedRow(method="last", ratio=0.0, value=0.99),
        PublishedRow(method="last", ratio=0.5, value=0.912),
        PublishedRow(method="last", ratio=0.7, value=0.8),
        PublishedRow(method="aire", ratio=0.5, value=0.9534),
    ),
)


def result(*rows, published=NUMBERS, **more):
    of = {"checkpoint": "m", "family": "s5", "metric": "accuracy", "baseline": 0.98, "n": 200, "states": 100}
    return SweepResult(**of, layer_states=(20,), rows=rows, published=published, **more)


@pytest.fixture
def one():
    return result(row("last", 0.5, 0.9, published=0.912), row("last", 0.6, 0.85))


def lines_of(text):
    return [line.split() for line in text.splitlines()]


def test_the_numbers_of_the_one_method_stand_alone(one):
    lines = lines_of(as_text(one))
    place = lines[1].index("published")
    assert place == lines[1].index("accuracy") + 1
    assert [line[place] for line in lines if line and line[0] in ("full", "50%", "60%")] == ["99.00%", "91.20%", "–"]


def test_what_is_at_no_ratio_of_the_sweep_stands_below(one):
    last = as_text(one).splitlines()[-1]
    assert last == "Published: a paper. Not in the table: last 80.00% at 70%, aire 95.34% at 50%."


@pytest.mark.parametrize(("method", "refit"), [("obs", "h2"), ("last", "h2")])
def test_other_methods_have_the_paper_s_with_their_names(method, refit):
    text = as_text(result(row(method, 0.5, 0.9, refit)))
    assert "last 91.20%, aire 95.34%" in text
    assert "Not in the table: last 80.00% at 70%." in text


def test_methods_side_by_side_share_one_column():
    text = as_text(result(row("last", 0.5, 0.9), row("aire", 0.5, 0.95)))
    fifty = next(line for line in text.splitlines() if line.strip().startswith("50%"))
    assert fifty.rstrip().endswith("last 91.20%, aire 95.34%")


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_narrow_terminal_gets_more_tables_and_no_wider_ones(width):
    names = ("last", "aire", "obs", "lamp", "global-hinf", "uniform-hinf")
    many = result(*(row(name, 0.5, 0.9) for name in names))
    text = as_text(many, width)
    assert max(map(len, text.splitlines())) <= width
    assert all(name in text for name in names)


def test_no_column_where_there_are_none():
    plain = result(row("last", 0.5, 0.9), published=None)
    assert "ublished" not in as_text(plain) + as_csv(plain) + as_markdown(plain) + as_html(plain)


def test_markdown_page_csv_and_json_have_them(one):
    assert "| published |" in as_markdown(one)
    assert "91.20%" in as_html(one)
    assert [line["published"] for line in csv.DictReader(io.StringIO(as_csv(one)))] == ["0.912", ""]
    document = one.to_json()
    assert [line["published"] for line in document["rows"]] == [0.912, None]
    assert document["published"] == {
        "source": "a paper",
        "metric": "accuracy",
        "full": 0.99,
        "rows": [dataclasses.asdict(each) for each in NUMBERS.rows],
    }


def test_a_name_in_a_source_cannot_move_the_cursor():
    evil = dataclasses.replace(NUMBERS, source="a\x1b[2Jpaper")
    assert "\x1b" not in as_text(result(row("last", 0.5, 0.9), published=evil))
