"""The page with pictures: well-formed, alone, without scripts, and nothing in it that a name made."""

from __future__ import annotations

import dataclasses
import html.parser
import re

import numpy as np
import pytest

from lastcli.errors import UsageError
from lastcli.report.blocks import Cell, Drawing, Line
from lastcli.report.html import as_html
from lastcli.report.html.markup import breakable, element, text
from lastcli.report.html.states import _runs, _shares
from lastcli.report.html.svg import Scale, ticks
from lastcli.report.html.tables import blocks_markup
from lastcli.results import Anatomy, LayerAnatomy, UnstableStates
from tests.report import samples
from tests.report.anatomies import HOSTILE, origin, sweep

VOID = {"meta", "br", "wbr"}


class Page(html.parser.HTMLParser):
    """Elements of a page; fails where they do not nest."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(source)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def count(self, tag: str, class_: str = "") -> int:
        return sum(1 for name, attrs in self.found if name == tag and class_ in (attrs.get("class") or "").split(" "))

    @property
    def said(self) -> str:
        return " ".join(self.words)


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(as_html(sweep(notes=("Something to know.",)), origin()))


def test_a_sweep_has_every_section(page: Page) -> None:
    said = page.said
    for words in (
        "Accuracy against ratio", "Sizes and costs", "Layers", "States that stay: obs + calibrated", "Poles: obs",
        "Energies: obs", "How it was made", "Notes and warnings", "Something to know.", "182.9 kB", "1.0 kB", "21,152",
        "last sweep 'my model.pth' --ratios 0.5", "ab" * 32, "jax 0.9", "2026-01-01 00:00 UTC", "ratios: [0.5]",
        "chosen: 70%",
    ):  # fmt: skip
        assert words in said, words


def test_every_row_is_a_point_and_every_finite_interval_is_drawn(page: Page) -> None:
    curves = [attrs for tag, attrs in page.found if tag == "path" and (attrs.get("class") or "").startswith("curve")]
    assert len(curves) == 4  # two lines, and the two of the legend
    points = page.count("path", "point")
    assert points == 2 * len(samples.RATIOS) + 2
    assert page.count("path", "band") == 2
    assert page.count("circle", "ring") == 1
    many = Page(as_html(sweep(5)))
    assert many.count("path", "band") == 0
    assert many.count("path", "whisker") == 5 * len(samples.RATIOS)


def test_curves_stand_where_their_numbers_are() -> None:
    source = as_html(sweep(1, baseline_ci=(None, None), max_drop=None, chosen=None))
    d = re.search(r'<path d="M([^"]+)" class="curve c0"', source)
    assert d is not None
    points = [tuple(map(float, pair.split(" "))) for pair in d[1].split("L")]
    x, y = np.array(points).T
    ratios, values = np.array(samples.RATIOS), np.array(samples.LAST)
    # affine in the ratio and in the value
    assert np.corrcoef(x, ratios)[0, 1] == pytest.approx(1, abs=1e-6)
    assert np.corrcoef(y, -values)[0, 1] == pytest.approx(1, abs=1e-6)
    assert (x[0], x[-1]) == (76, 700)


def test_the_page_loads_nothing_and_runs_nothing(page: Page) -> None:
    tags = {tag for tag, _ in page.found}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "image", "use", "a", "form", "base"}
    for tag, attrs in page.found:
        assert not {"src", "href", "xlink:href", "srcset", "action"} & attrs.keys(), tag
        assert not any(key.startswith("on") for key in attrs), tag
        assert "url(" not in (attrs.get("style") or "")
    policy = next(attrs["content"] for _, attrs in page.found if attrs.get("http-equiv"))
    assert policy is not None
    assert "default-src 'none'" in policy
    style = as_html(sweep()).split("<style>")[1].split("</style>")[0]
    assert not re.search(r"@import|url\(|https?:", style)
    for wanted in ("prefers-color-scheme: dark", "@media print", "max-width"):
        assert wanted in style


@pytest.mark.parametrize("sets", [1, 3])
def test_no_name_becomes_markup_or_moves_the_text(sets: int) -> None:
    unstable = UnstableStates(layer=HOSTILE, states=(1,), largest=1.5, energy=(1.0,), steps=10)
    result = sweep(
        name=HOSTILE + "{}", sets=sets, checkpoint=HOSTILE, data=HOSTILE, metric=HOSTILE, notes=(HOSTILE,),
        unstable=(unstable,),
    )  # fmt: skip
    source = as_html(result, origin())
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", source)
    page = Page(source)
    assert not {"script", "img"} & {tag for tag, _ in page.found}
    assert "\\x1b[2J</script><img src=x onerror=alert(1)>" in page.said


@pytest.mark.parametrize("result", [samples.inspect(), samples.score(), samples.score(multi=True), samples.prune()])
def test_other_verbs_have_a_page_without_and_with_pictures(result: object) -> None:
    bare = Page(as_html(result))  # type: ignore[arg-type]
    assert "Table" in bare.said
    drawn = dataclasses.replace(result, anatomy=sweep().anatomy)  # type: ignore[type-var]
    page = Page(as_html(drawn, origin()))
    assert {"Poles", "Energies"} <= set(page.words)
    assert page.count("svg", "poles") == page.count("svg", "energies") == 4


def test_there_is_no_page_of_what_has_no_pictures() -> None:
    with pytest.raises(UsageError, match="sweep, prune, score and inspect"):
        as_html(samples.evaluation())


def test_what_is_not_finite_or_not_known_is_left_out_of_the_pictures() -> None:
    rows = tuple(
        dataclasses.replace(row, value=float("nan"), drop=float("inf"), ci_low=None, ci_high=None) if i % 2 else row
        for i, row in enumerate(samples.sweep().rows)
    )
    page = Page(as_html(samples.sweep(rows=rows, chosen=None)))
    assert page.count("path", "point") == 4 + 1
    assert "nan" not in " ".join(str(attrs) for tag, attrs in page.found if tag != "meta")


def test_errors_over_several_powers_of_ten_are_on_a_logarithmic_scale() -> None:
    values = [10.0**i for i in range(-3, 3)]
    rows = tuple(samples.sweep_row("last", "none", 0.1 * i, v, 1e-3) for i, v in enumerate(values))
    found = samples.sweep(rows=rows, chosen=None, metric="mse", baseline=1e-3, higher_is_better=False)
    source = as_html(dataclasses.replace(found, baseline_ci=(None, None)))
    d = re.search(r'<path d="M([^"]+)" class="curve c0"', source)
    assert d is not None
    y = np.array([float(pair.split(" ")[1]) for pair in d[1].split("L")])
    assert np.diff(y)[1:] == pytest.approx(np.diff(y)[0], abs=0.5)


def test_states_that_stay_are_shares_of_the_channels_ranked_by_energy() -> None:
    layer = LayerAnatomy(name="l", states=4, sets=2, energy=np.array([[1.0, 4, 3, 2], [9, 1, 2, 3]]))
    kept = np.array([[1, 2], [0, 1]])
    # channel 0 in order 1 2 3 0 keeps its two strongest, channel 1 in order 0 3 2 1 the first and the last
    assert _shares(layer, kept).tolist() == [1, 0.5, 0, 0.5]
    assert _runs(np.array([1, 1, 0.5, 0, 0, 0.001])) == [(10, 0, 2), (5, 2, 1), (0, 3, 2), (1, 5, 1)]


def test_poles_are_drawn_where_they_are_and_far_ones_at_the_edge() -> None:
    layer = LayerAnatomy(name="l", states=3, sets=1, poles=np.array([1, -0.5j, 7 + 0j]))
    source = as_html(dataclasses.replace(samples.inspect(), anatomy=Anatomy(layers=(layer,))))
    assert 'd="M220 120h.01M120 170h.01M235 120h.01"' in source
    assert "1 further out than 1.15, drawn there" in source


def test_a_layer_of_many_poles_is_thinned_out_and_says_so() -> None:
    layer = LayerAnatomy(name="l", states=1, sets=1, poles=np.exp(1j * np.linspace(0, 3, 20000)))
    source = as_html(dataclasses.replace(samples.inspect(), anatomy=Anatomy(layers=(layer,))))
    assert "evenly thinned out" in source
    assert len(source) < 200_000


def test_energies_show_what_goes_and_what_has_none() -> None:
    layer = LayerAnatomy(name="l", states=4, sets=1, energy=np.array([[np.inf, 1.0, 0.0, 1e-3]]))
    anatomy = Anatomy(layers=(layer,), energy_of="last", kept=((np.array([[0, 1]]),),), shown=0)
    page = Page(as_html(dataclasses.replace(samples.prune(), anatomy=anatomy)))
    assert "4 states, 2 stay, 1 without a finite energy" in page.said
    bars = [attrs["d"] or "" for tag, attrs in page.found if tag == "path" and "bar" in (attrs.get("class") or "")]
    assert [d.count("z") for d in bars] == [2, 2]


def test_elements_escape_what_is_not_markup() -> None:
    assert element("p", "<b>&", class_='"x"') == '<p class="&quot;x&quot;">&lt;b&gt;&amp;</p>'
    assert element("p", text("<")) == "<p>&lt;</p>"
    assert element("p", None_=None) == "<p></p>"
    assert breakable("a/b.<c>") == "a/<wbr>b.<wbr>&lt;c&gt;"


def test_ticks_and_scales() -> None:
    assert ticks(0, 1, 6) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0.11, 0.98, 6) == [0.2, 0.4, 0.6, 0.8]
    assert ticks(1e-6, 1, 4, log=True) == pytest.approx([1e-6, 1e-4, 1e-2, 1])
    assert ticks(3, 3) == [3]
    scale = Scale(1, 100, 0, 10, log=True)
    assert [scale(v) for v in (0.1, 1, 10, 100, 1000)] == [0, 0, 5, 10, 10]
    assert Scale(2, 2, 0, 10)(2) == 5


def test_what_was_not_counted_or_kept_has_no_section() -> None:
    full = sweep()
    assert full.anatomy is not None
    assert full.anatomy.before is not None
    size_only = dataclasses.replace(
        full.anatomy,
        before=dataclasses.replace(full.anatomy.before, state_bytes=None, multiply_adds=None),
        costs=tuple(dataclasses.replace(one, state_bytes=None) for one in full.anatomy.costs),
    )
    said = Page(as_html(dataclasses.replace(full, anatomy=size_only))).said
    assert "182.9 kB" in said
    assert "multiply-adds of a step" not in said
    assert "state of a sequence" not in said
    bare = dataclasses.replace(full.anatomy, before=None, costs=(), kept=((),) * len(full.rows))
    rows = tuple(dataclasses.replace(row, layers=()) for row in full.rows)
    page = Page(as_html(dataclasses.replace(full, rows=rows, chosen=None, anatomy=bare)))
    assert "Energies: obs + calibrated at 70%" in page.words
    assert not {"Sizes and costs", "Layers"} & set(page.words)
    assert not any(word.startswith("States that stay") for word in page.words)


def test_of_layers_of_two_kinds_only_those_with_poles_have_a_circle() -> None:
    selective = LayerAnatomy(name="mamba", states=4, sets=1)
    other = LayerAnatomy(name="l", states=3, sets=1, poles=np.array([0.5, -0.5j, 0.7 + 0j]))
    page = Page(as_html(dataclasses.replace(samples.inspect(), anatomy=Anatomy(layers=(selective, other)))))
    assert page.count("svg", "poles") == 1


def test_how_a_result_of_python_was_made_is_its_recipe() -> None:
    made = type(origin())(recipe={"ratios": [0.5]}, versions={"last": "1"}, moment="now")
    words = set(Page(as_html(sweep(), made)).words)
    assert {"Recipe", "Versions"} <= words
    assert not {"Command", "Files"} & words


def test_a_drawing_of_a_terminal_is_left_out() -> None:
    assert (
        blocks_markup([Line("<a>"), Drawing(((Cell("##"),),)), Line("b", "bad")])
        == '<p>&lt;a&gt;</p><p class="bad">b</p>'
    )
