"""The site: every page is in its navigation once, links out of docs/ lead to what it has; with MkDocs, it builds."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib

import pytest
import yaml

import lastcli
from tests.docs.blocks import ROOT

DOCS = ROOT / "docs"


class _Config(yaml.SafeLoader):
    """mkdocs.yml names one Python function."""


_Config.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, tag, node: tag)
CONFIG = yaml.load((ROOT / "mkdocs.yml").read_text(), _Config)


def hook():
    spec = importlib.util.spec_from_file_location("outside", DOCS / "_site" / "outside.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OUTSIDE = hook()


def listed(entries):
    """Every page under a list of the navigation."""
    for entry in entries:
        (target,) = entry.values() if isinstance(entry, dict) else (entry,)
        yield from listed(target) if isinstance(target, list) else (target,)


def test_every_page_is_in_the_navigation_once():
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert sorted(listed(CONFIG["nav"])) == sorted([*pages, *OUTSIDE.PAGES]), "mkdocs.yml: nav"


def test_nothing_is_fetched_by_a_reader_of_the_site():
    assert CONFIG["theme"]["font"] is False
    assert not [path for path in [*CONFIG["extra_css"], *CONFIG.get("extra_javascript", ())] if "//" in path]


@pytest.mark.parametrize(
    ("page", "target", "place"),
    [
        ("index.md", "docs/cli.md", "cli.md"),
        ("index.md", "docs/families/s5.md#loading", "families/s5.md"),
        ("index.md", "benchmarks/", "benchmarks.md"),
        ("index.md", "LICENSE", "project/LICENSE"),
        ("benchmarks.md", "README.md", "benchmarks.md"),
        ("checkpoints.md", "../README.md#checkpoints", "index.md"),
        ("families/lru.md", "../forward.md", "forward.md"),
        ("families/lru.md", "../../CHANGELOG.md", "changelog.md"),
        ("ci.md", "../.github/workflows/gate.yml", "project/.github/workflows/gate.yml"),
        ("ci.md", "nowhere.md", None),
        ("ci.md", "#a-heading", None),
        ("ci.md", "https://example.org/docs/cli.md", None),
    ],
)
def test_a_link_leads_to_what_the_site_has(page, target, place):
    assert OUTSIDE.place(page, target) == place


def test_links_in_code_stay_and_bars_in_tables_are_bars():
    text = "[a](x.md) `[a](x.md)`\n\n```python\n[a](x.md)\n```\n\n[`a`](x.md)\n"
    found = OUTSIDE.relinked(text, lambda shown, target: f"[{shown}]({target.replace('x', 'y')})")
    assert found == "[a](y.md) `[a](x.md)`\n\n```python\n[a](x.md)\n```\n\n[`a`](y.md)\n"
    assert OUTSIDE.bars("| `a \\| b` | c \\| d |\n`a \\| b`") == "| `a | b` | c \\| d |\n`a \\| b`"


def test_every_public_name_has_its_place_in_the_reference_of_python():
    documented = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(), re.M)}
    members = set(re.findall(r"\w+Error|ExitCode", (DOCS / "api.md").read_text()))
    assert set(lastcli.__all__) - {"__version__"} <= documented | members
    from lastcli import errors, results

    assert {name for name in results.__all__ if name.endswith("Result")} - {"SearchResult"} <= documented
    classes = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert classes <= members


def test_the_site_is_built_with_what_its_extra_names():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {re.match(r"[\w-]+", requirement)[0] for requirement in extras["docs"]}
    plugins = {next(iter(plugin)) if isinstance(plugin, dict) else plugin for plugin in CONFIG["plugins"]} - {"search"}
    assert named == {"mkdocs", f"mkdocs-{CONFIG['theme']['name']}", *plugins, "ruff"}  # ruff formats signatures
    assert {ruff for ruff in extras["docs"] if ruff.startswith("ruff")} <= set(extras["test"])
    assert "mkdocs build --strict" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    home = (tmp_path / "site" / "index.html").read_text()
    assert "cli.html" in home
    assert not re.findall(r'(?:src|href)="(https?:)?//[^"]*\.(?:js|css|woff2?)"', home)
