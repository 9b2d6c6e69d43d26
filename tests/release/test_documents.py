"""What a release goes out with: the size of the wheel, the form of the changelog, versions that agree."""

from __future__ import annotations

import re
import zlib

import pytest
import yaml

import lastcli
from tests.release import changelog
from tests.release.__main__ import SMOKE, pythons
from tests.release.project import LIMIT, PYPROJECT, ROOT, accepts, lowest, packed, version

PROJECT = PYPROJECT["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
GOOD = """# Changelog

The format is that of Keep a Changelog, versions follow Semantic Versioning.

## [Unreleased]

### Added
- One thing,
  in two lines.

## [0.2.0] - 2026-01-31

### Changed
- Another.

### Fixed
- A third.

## [0.1.0] - 2025-12-01

### Added
- The first.
"""


def test_the_wheel_stays_small():
    assert {path.name for path in packed()} >= {"digits.safetensors", "s5.md", "py.typed", "_version.py"}
    assert sum(len(zlib.compress(path.read_bytes())) for path in packed()) < 0.9 * LIMIT  # directories come on top


def test_the_changelog_has_its_form():
    assert list(changelog.faults(CHANGELOG)) == []


def test_a_changelog_of_that_form_is_right():
    assert list(changelog.faults(GOOD)) == []
    assert changelog.releases(GOOD) == [(0, 2, 0), (0, 1, 0)]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("# Changelog", "# Changes", "does not begin"),
        ("Keep a Changelog", "our own", "does not name Keep a Changelog"),
        ("## [Unreleased]", "## [0.3.0] - 2026-02-01", "not \\[Unreleased\\]"),
        ("2026-01-31", "2026-01-32", "no date"),
        ("[0.2.0] - 2026-01-31", "0.2.0", "is not '\\[MAJOR"),
        ("[0.2.0]", "[0.0.9]", "falling order"),
        ("### Fixed", "### Improved", "no section is called Improved"),
        ("### Fixed", "### Added", "out of order"),
        ("- A third.", "", "Fixed is empty"),
        ("- A third.", "A third.", "more than a list"),
        ("### Changed\n", "Some words.\n\n### Changed\n", "text before"),
    ],
)
def test_a_changelog_out_of_form_is_noticed(old, new, fault):
    assert re.search(fault, " ".join(changelog.faults(GOOD.replace(old, new, 1))))


def test_the_version_is_stated_once_and_not_behind_the_changelog():
    assert lastcli.__version__ == version()
    assert PROJECT["dynamic"] == ["version"]
    assert "version" not in PROJECT
    own = tuple(map(int, version().split(".")))
    assert all(released <= own for released in changelog.releases(CHANGELOG))


def test_the_pythons_are_those_that_the_release_is_tried_on():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    tried = [tuple(map(int, name.split("."))) for name in workflow["jobs"]["package"]["strategy"]["matrix"]["python"]]
    assert tried == sorted(tried)
    assert tried[0] == lowest()
    claimed = re.findall(r"Python :: (\d)\.(\d+)", " ".join(PROJECT["classifiers"]))
    assert {tuple(map(int, found)) for found in claimed} <= set(tried)
    assert not accepts((lowest()[0], lowest()[1] - 1))
    assert pythons()


def test_the_smoke_test_runs_the_commands_of_the_whole_job():
    assert {arguments.split()[0] for arguments in SMOKE} >= {"inspect", "score", "sweep", "prune", "verify", "eval"}
