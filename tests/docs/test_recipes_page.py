"""docs/recipes.md is followed from top to bottom; the recipe shown is a file of its own."""

from __future__ import annotations

from tests.docs.blocks import RUNNERS, blocks


def test_the_page_on_recipes_is_followed(tmp_path, monkeypatch, last):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    for block in blocks("docs/recipes.md"):
        if block.language == "yaml":
            (tmp_path / "paper.yaml").write_text(block.text)
        else:
            RUNNERS[block.language](block, {}, last)
    assert (tmp_path / "last.schema.json").exists()
    assert (tmp_path / "digits-small.safetensors").exists()
