"""docs/report.md and docs/ci.md are followed from top to bottom; the recipe shown is the folder's last.yaml."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tests.docs.blocks import RUNNERS, blocks, follow


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_page_on_reports_is_followed(folder, last):
    follow("docs/report.md", {}, last)
    for name in ("report.html", "pruned.html", "score.html", "inspect.html", "page.html"):
        assert (folder / name).read_text().startswith("<!doctype html>"), name
    assert "# small.safetensors" in (folder / "README.md").read_text()


def test_the_page_on_jobs_is_followed(folder, last):
    for block in blocks("docs/ci.md"):
        if block.language == "yaml":
            (folder / "last.yaml").write_text(block.text)
        else:
            RUNNERS[block.language](block, {}, last)
    assert ElementTree.parse(folder / "gates.xml").getroot().get("failures") == "0"
    assert "### last sweep" in (folder / "summary.md").read_text()
    assert (folder / "tiny.safetensors").exists()
