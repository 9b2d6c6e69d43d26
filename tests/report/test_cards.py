"""The model card: what it says for every family, and that nothing in it breaks out of its place."""

from __future__ import annotations

import re

import pytest

from lastcli.families import FAMILIES, family_named
from lastcli.families.pages import loading_section, page_text
from lastcli.report.cards import as_card
from tests.report import samples
from tests.report.anatomies import HOSTILE, origin


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_says_how_its_files_are_loaded(name: str) -> None:
    section = loading_section(family_named(name).page)
    assert section is not None
    assert "```python" in section
    assert "```console" not in section
    assert "](" not in section.replace("](http", "")


def test_a_page_that_is_not_there_says_nothing() -> None:
    assert page_text("docs/families/none.md") is None
    assert loading_section("docs/families/none.md") is None


def test_code_names_the_file_where_it_reads_that_container_and_else_says_what_it_reads() -> None:
    loading = 'Build it:\n\n```python\ntorch.load("small.pth")\n```'
    same = as_card(samples.prune(out="d/mine.pth"), origin(), title="S4D", loading=loading, about=())
    assert 'torch.load("mine.pth")' in same
    other = as_card(samples.prune(), origin(), title="S4D", loading=loading, about=())
    assert 'torch.load("small.pth")' in other
    assert "`last convert small.safetensors small.pth` writes that" in other
    none = as_card(samples.prune(), origin(), title="S4D", loading=None, about=())
    assert "lastcli.open('small.safetensors')" in none
    assert "trained with" not in none


def test_the_card_has_the_tables_the_sentences_and_the_hashes() -> None:
    card = as_card(samples.prune(), origin(), title="S5", loading=None, about=("Method obs: by true cost.",))
    for words in (
        "90 of its 128 states removed (70.31%)",
        "- Method obs: by true cost.",
        "26,950",
        "`" + "ab" * 32 + "`",
    ):
        assert words in card, words


def test_no_name_is_markup_or_ends_a_block() -> None:
    fenced = origin()
    fenced = type(fenced)(command=("prune", "```\n# x"), recipe={"checkpoint": "a```b"}, files=fenced.files)
    card = as_card(samples.prune(checkpoint=HOSTILE, out=HOSTILE + ".pth"), fenced, title="S5", loading=None, about=())
    assert "\x1b" not in card
    assert "\u202e" not in card
    prose = re.sub(r"^(`{3,})\w+\n.*?^\1$", "", card, flags=re.MULTILINE | re.DOTALL)
    assert "<img" not in prose.replace("\\<img", "")
    assert "# x" not in prose


def test_code_that_reads_no_file_and_a_model_of_python_without_a_command() -> None:
    made = type(origin())(recipe={"ratio": 0.5}, versions={"last": "1"}, moment="now")
    card = as_card(samples.prune(), made, title="S5", loading="Build it.", about=())
    assert "Build it." in card
    assert "last convert" not in card
    assert "```sh" not in card
    assert "sha256" not in card
    assert "ratio: 0.5" in card
