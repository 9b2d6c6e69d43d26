"""The composite action and the workflow: their shell steps run here, with the environment that a runner sets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from tests.conftest import write_s5

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
GATE = ROOT / ".github" / "workflows" / "gate.yml"
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}


def filled(text: str, given: dict[str, str]) -> str:
    """Expressions of a step replaced as the runner replaces them."""

    def value(found: re.Match[str]) -> str:
        room, _, name = found[1].strip().partition(".")
        return given[name] if room == "inputs" else {"action_path": str(ROOT)}[name]

    return re.sub(r"\$\{\{(.*?)\}\}", value, text)


def run(step: dict, folder: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """One shell step of the action in `folder`, `python` being the one that runs this."""
    inputs = {name: str(item["default"]) for name, item in ACTION["inputs"].items()} | given
    (folder / "bin").mkdir(exist_ok=True)
    python = folder / "bin" / "python"
    if not python.exists():
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        **{name: filled(text, inputs) for name, text in step.get("env", {}).items()},
    }
    script = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", filled(step["run"], inputs)]
    return subprocess.run(script, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path, tiny, data):
    write_s5(tmp_path / "my model.safetensors")
    return tmp_path


def test_the_action_is_composite_and_every_step_names_its_shell() -> None:
    assert ACTION["runs"]["using"] == "composite"
    for step in STEPS.values():
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "an input inside a script could be a command"
    used = set(re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text()))
    assert used == set(ACTION["inputs"])


def test_the_sweep_of_the_action_gates_and_leaves_its_files(folder: Path) -> None:
    arguments = "'my model.safetensors' --data data.npz --ratios 0,0.5"
    done = run(STEPS["Sweep"], folder, arguments=arguments, **{"fail-under": "1.0"})
    assert done.returncode == 1, done.stderr
    assert "::error title=last sweep::" in done.stderr
    assert "my model.safetensors" in (folder / "last-report.html").read_text()
    assert ElementTree.parse(folder / "last-junit.xml").getroot().get("failures") != "0"
    assert "### last sweep" in (folder / "summary.md").read_text()


@pytest.mark.slow
def test_without_arguments_the_action_takes_the_recipe_of_the_folder(folder: Path) -> None:
    (folder / "last.yaml").write_text("checkpoint: my model.safetensors\ndata: data.npz\nratios: [0.5]\n")
    done = run(STEPS["Sweep"], folder, report="", junit="")
    assert done.returncode == 0, done.stderr
    assert "Recipe: last.yaml" in done.stderr
    assert not (folder / "last-report.html").exists()


def test_no_input_is_run_by_the_shell(folder: Path) -> None:
    done = run(STEPS["Sweep"], folder, arguments="$(touch bad) ; touch bad2 `touch bad3`", report="x;touch bad4")
    assert done.returncode != 0
    assert not list(folder.glob("bad*"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_uses_inputs_that_there_are_and_files_that_are_made(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        own = [step for step in job["steps"] if step.get("uses") == "./"]
        assert own or path != GATE
        for step in own:
            assert set(step["with"]) <= set(ACTION["inputs"])
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)


@pytest.mark.slow
def test_the_steps_of_the_workflow_run(tmp_path: Path) -> None:
    (job,) = yaml.safe_load(GATE.read_text())["jobs"].values()
    files = job["steps"][-1]["with"]["path"].split()
    for step in job["steps"]:
        if step.get("uses") == "./":
            done = run(STEPS["Sweep"], tmp_path, **step["with"])
        elif "run" in step:
            done = run(step, tmp_path)
        else:
            continue
        assert done.returncode == 0, done.stderr
    assert not [name for name in files if not (tmp_path / name).exists()]
