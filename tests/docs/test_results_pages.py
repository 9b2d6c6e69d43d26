"""The pages on the bundled model are followed from top to bottom, in one file so that they share what they compile.

docs/tour.md shows what its commands print; the recipe in docs/ci.md is the folder's last.yaml.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from benchmarks import tour
from tests.docs.blocks import ROOT, RUNNERS, blocks, follow


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.slow
def test_the_page_on_reports_is_followed(folder, last):
    follow("docs/report.md", {}, last)
    for name in ("report.html", "pruned.html", "score.html", "inspect.html", "page.html"):
        assert (folder / name).read_text().startswith("<!doctype html>"), name
    assert "# small.safetensors" in (folder / "README.md").read_text()


@pytest.mark.slow
def test_the_page_on_jobs_is_followed(folder, last):
    for block in blocks("docs/ci.md"):
        if block.language == "yaml":
            (folder / "last.yaml").write_text(block.text)
        else:
            RUNNERS[block.language](block, {}, last)
    assert ElementTree.parse(folder / "gates.xml").getroot().get("failures") == "0"
    assert "### last sweep" in (folder / "summary.md").read_text()
    assert (folder / "tiny.safetensors").exists()


def shape(text: str) -> str:
    """Text without its numbers, bars and widths, which differ a little from machine to machine."""
    return " ".join(re.sub(r"[\d.,e−-]+|[▁▂▃▄▅▆▇█★─]+", "#", text).split())


@pytest.mark.slow  # the commands are those of the README and of the pages of their own
def test_the_tour_is_followed_and_prints_what_it_shows(folder, last):
    page = (ROOT / "docs/tour.md").read_text()

    def printed(arguments):
        code, out, err = last(*arguments)
        assert code == 0, err
        return out

    assert shape(tour.filled(page, printed)) == shape(page), "run: python -m benchmarks.tour"
    for name in ("report.html", "small.safetensors", "README.md"):
        assert (folder / name).exists(), name
    scope: dict = {}
    for block in blocks("docs/tour.md"):
        if block.language == "python":
            RUNNERS["python"](block, scope, last)
    shown = re.search(r"accuracy [\d.]+% → ([\d.]+)%", page)
    assert 100 * scope["accuracy"] == pytest.approx(float(shown[1]), abs=1)


@pytest.mark.slow  # the same commands are among those of the README, which every run follows
def test_the_page_on_choosing_is_followed(folder, last):
    follow("docs/choosing.md", {}, last)
    assert (folder / "within.safetensors").exists()
