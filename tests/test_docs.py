"""The written pages against the code: the reference of the commands, the links, the declared dependencies."""

import ast
import dataclasses
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lastcli.cli.reference import command_flags, declarations, reference
from lastcli.errors import ExitCode
from lastcli.plan import METHODS, REFITS, Plan

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "cli.md"
TEXT = PAGE.read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))
# where the distribution has another name than what is imported
DISTRIBUTIONS = {"yaml": "pyyaml"}


def section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, flags=re.MULTILINE | re.DOTALL)[1]


def generate(**environment):
    """The page as another process prints it, and what that process has imported."""
    code = (
        "import runpy, sys\nrunpy.run_module('lastcli.cli.reference', run_name='__main__')\n"
        "print(sorted({'jax', 'flax', 'numpy'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment or None)
    return done.stdout.decode(), done.stderr.decode().strip()


def test_the_page_of_commands_is_what_the_code_prints():
    assert reference() == TEXT, "run: python -m lastcli.cli.reference > docs/cli.md"


def test_the_page_depends_on_no_terminal_and_imports_nothing_heavy(monkeypatch):
    import os

    for columns in ("40", "400"):
        text, heavy = generate(**{**os.environ, "COLUMNS": columns, "LC_ALL": "C", "PYTHONHASHSEED": columns})
        assert text == reference()
        assert heavy == "[]"


@pytest.mark.parametrize("command", list(command_flags()))
def test_the_page_has_every_option_that_the_help_of_the_command_shows(command, last):
    _, out, _ = last(*command.split(), "--help")
    shown = set(re.findall(r"^ +(?:-\w, )?(--[a-z][a-z-]+)", out, flags=re.MULTILINE))
    assert shown >= {"--help"}
    written = section(f"last {command}") + section("Options of every command") + section("last")
    missing = {name for name in shown if not re.search(rf"`{name}[ `]", written)}
    assert not missing


def test_every_spelling_of_every_option_is_in_the_documents():
    spellings = {name for flags in command_flags().values() for flag in flags for name in declarations(flag)}
    assert {"--name", "--warmup", "--limit", "--seed", "--plot", "-o"} <= spellings
    assert not {name for name in spellings if not re.search(rf"`{name}[ `]", TEXT)}


def test_every_field_of_the_plan_is_a_recipe_key_with_its_default_and_its_help():
    table = section("Recipe keys")
    for field in dataclasses.fields(Plan):
        row = re.search(rf"^\| `{field.name}` \|.*$", table, flags=re.MULTILINE)
        assert row, field.name
        assert field.metadata["help"].replace("|", "\\|") in row[0]
    assert re.search(r"^\| `steps` \| whole number \| `1` \|", table, flags=re.MULTILINE)
    assert re.search(r"^\| `method` \| method \| \|", table, flags=re.MULTILINE)


def test_every_method_and_refit_has_its_row():
    for title, known in (("Methods", METHODS), ("Refits", REFITS)):
        assert re.findall(r"^\| `([\w+-]+)` \|", section(title), flags=re.MULTILINE) == list(known)


def test_every_exit_code_has_its_row():
    codes = re.findall(r"^\| (\d+) \| \w", section("Exit codes"), flags=re.MULTILINE)
    assert [int(code) for code in codes] == [int(code) for code in ExitCode]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page):
    text = (ROOT / page).read_text()
    prose = re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.read_text()), target


def anchors(text):
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def imported():
    """Every library that the package imports, anywhere in a function too."""
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"lastcli", "__future__"}


def declared(requirements):
    return {re.match(r"[\w.-]+", requirement)[0].lower().replace("-", "_") for requirement in requirements}


def test_what_is_imported_is_declared_and_nothing_else():
    extras = PROJECT["optional-dependencies"]
    names = {DISTRIBUTIONS.get(name, name) for name in imported()}
    optional = {name for extra in ("torch", "plot", "text", "parquet") for name in declared(extras[extra])}
    assert names == declared(PROJECT["dependencies"]) | optional


def test_every_dependency_has_a_lower_bound():
    requirements = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
    assert not [requirement for requirement in requirements if not re.search(r"[>=]=\d", requirement)]
