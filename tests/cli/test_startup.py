"""What a small command loads: of each kind what it needs, and nothing of the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lastcli.containers
import lastcli.results

LOADED = """
import sys
from lastcli.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    assert not end.code
print("\\nLOADED", *sorted(sys.modules))
"""


def loaded(*arguments: str) -> set[str]:
    """Names of the modules that are loaded once the command has run, in a process of its own."""
    command = [sys.executable, "-c", LOADED.format(arguments=[*arguments])]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set(output.rpartition("LOADED ")[2].split())


def test_inspect_loads_its_own_results_and_no_writer_no_other_container_no_engine(tiny: Path) -> None:
    names = loaded("inspect", str(tiny))
    assert "lastcli.results.inspect" in names
    others = {
        "jax", "flax", "scipy", "torch", "lastcli.reduction", "lastcli.evaluation.sweep", "lastcli.containers.writing",
        "lastcli.containers.torch.reader", "lastcli.containers.pickle.stream", "lastcli.report.sweeps",
        "lastcli.report.files", "lastcli.containers.jobs", "lastcli.families.mapped.map", "lastcli.demo",
        "concurrent.futures", "zipfile",
        *(f"lastcli.results.{name}" for name in ("sweep", "prune", "verify", "bench", "recipes", "score")),
        "lastcli.results.anatomy", "lastcli.results.suggest",
    }  # fmt: skip
    assert sorted(names & others) == []


def test_help_loads_no_numpy() -> None:
    assert not loaded("prune", "--help") & {"numpy", "jax", "lastcli.containers", "lastcli.results"}


@pytest.mark.parametrize("package", [lastcli, lastcli.results, lastcli.containers])
def test_every_name_is_there_when_it_is_asked_for(package) -> None:
    assert sorted(package.__all__) == dir(package)
    for name in package.__all__:
        getattr(package, name)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        package.nonsense  # noqa: B018
