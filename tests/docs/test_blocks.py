"""Every fenced block of every page is run by some test, or stands in a short list of what only shows something."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.docs.blocks import PAGES, ROOT, RUNNERS, blocks, commands

# page → the tests that run its blocks, where `follow` is not what runs them
RUN_BY = {
    "docs/maps.md": "tests/families/test_mapped.py tests/verbs/test_map.py",
    "README.md": "tests/test_readme.py",
    "docs/capture.md": "tests/recording/test_documents.py",
    "docs/checkpoints.md": "tests/containers/test_checkpoints_page.py",
    "docs/data.md": "tests/evaluation/readers/test_page.py",
    "docs/tasks.md": "tests/verbs/test_tasks.py",
    "docs/report.md": "tests/docs/test_results_pages.py",
    "docs/recipes.md": "tests/docs/test_recipes_page.py",
    "docs/ci.md": "tests/docs/test_results_pages.py",
    "docs/tour.md": "tests/docs/test_results_pages.py",
    "docs/choosing.md": "tests/docs/test_results_pages.py",
    "docs/mathematics.md": "tests/docs/test_guide_pages.py",
    "docs/forward.md": "tests/evaluation/test_external.py",
    "docs/scale.md": "tests/parallel/test_page.py",
    "docs/development.md": "tests/families/test_development.py tests/plan/test_development.py "
    "tests/containers/test_development.py",
}
# page → the first lines of blocks that show an output, a drawing, or what is done once outside the project
SHOWN = {
    "README.md": {"$ pip install . && last sweep", "$ pip install '.[test]' && pytest"},
    "CONTRIBUTING.md": {"$ python3 -m venv .venv && . .venv/bin/activate"},
    "docs/architecture.md": {"flags, recipe ──► plan            what is wanted: ratio, method, refit, data"},
}
# docs/cli.md shows the usage of every command, printed by the code (tests/test_docs.py)
PRINTED = {"docs/cli.md": r"last [a-z]+( [a-z]+)?( [A-Z\[\]]+)*"}
FOLLOWED = [page for page in PAGES if page.startswith("docs/families/")]
TESTS = {path.name: path.read_text() for path in (ROOT / "tests" / "docs").glob("test_*_families.py")}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_every_block_has_a_test_or_only_shows_something(page: str) -> None:
    for block in blocks(page):
        first = block.text.splitlines()[0].strip()
        if first in SHOWN.get(page, ()):
            continue
        if page in PRINTED:
            assert re.fullmatch(PRINTED[page], first), block.where
        elif page in RUN_BY:
            for test in RUN_BY[page].split():
                assert (ROOT / test).exists()
        else:
            assert page in FOLLOWED, f"{block.where}: no test runs this page"
            assert block.language in RUNNERS, block.where


def test_the_list_of_what_only_shows_something_names_no_block_that_is_gone() -> None:
    for page, firsts in SHOWN.items():
        assert firsts <= {block.text.splitlines()[0].strip() for block in blocks(page)}, page


@pytest.mark.parametrize("page", FOLLOWED)
def test_a_familys_page_is_followed_from_its_first_block_to_its_last(page: str) -> None:
    calls = re.findall(rf'follow\(\s*"{page}",.*?\)', " ".join(TESTS.values()), flags=re.DOTALL)
    assert calls, f"no test follows {page}"
    whole = re.findall(rf'follow\(\s*"{page}"[^)]*?under="([^"]+)"', " ".join(TESTS.values()))
    headings = {block.heading for block in blocks(page)}
    assert len(whole) < len(calls) or headings <= set(whole), headings - set(whole)


@pytest.mark.parametrize("page", FOLLOWED)
def test_a_familys_page_prunes_with_last_and_imports_the_projects_own_code(page: str) -> None:
    languages = Counter(block.language for block in blocks(page))
    assert languages["console"] >= 1
    assert languages["python"] >= 1
    pruned = [command for block in blocks(page) if block.language == "console" for command in commands(block)]
    assert any(command[:2] == ["last", "prune"] for command in pruned)
    code = "\n".join(block.text for block in blocks(page) if block.language == "python")
    assert not re.search(r"^class ", code, flags=re.MULTILINE), "a project's class is shown rewritten"
