"""Every script of examples/ runs, all in one process, and what it prints is what it is there to show."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from lastcli.cli.reference import command_flags, declarations
from tests.conftest import write_s5
from tests.docs.outputs import outputs

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a script in an empty folder; what it printed."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def run(name: str) -> str:
        # a reader runs it with JAX as it comes
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            importlib.import_module(name).main(tmp_path)
        return capsys.readouterr().out

    yield run
    for name in {path.stem for path in EXAMPLES.glob("*.py")} & set(sys.modules):
        del sys.modules[name]


def numbers(pattern: str, text: str) -> list[float]:
    return [float(number) for number in re.findall(pattern, text)]


@pytest.mark.slow
def test_s5_in_flax(run):
    out = run("s5_flax")
    last, obs = numbers(r"accuracy ([\d.]+)", out)
    assert obs >= last
    assert "24 → 12 states" in out
    assert numbers(r"in flax: ([\d.]+)", out) == [pytest.approx(obs, abs=0.05)]


@pytest.mark.slow
def test_s4d_in_torch(run):
    out = run("s4d_torch")
    assert "96 → 48 states" in out
    (measured,), (own,) = numbers(r"measured ([\d.]+)", out), numbers(r": ([\d.]+) of the answers", out)
    assert measured == own
    assert own > 0.9


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_mamba_in_transformers(run):
    out = run("mamba_transformers")
    magnitude, obs = numbers(r"moved by ([\d.]+)", out)
    assert 0 < obs < magnitude
    assert out.count("state_size 8 → 4") == 2


def test_a_wrapper_that_is_captured(run):
    last, obs = numbers(r"moved by ([\d.]+)", run("capture_wrapper"))
    assert 0 < obs < last / 2


def test_a_forward_function_of_ones_own(run):
    out = run("own_forward")
    accuracies = numbers(r"accuracy ([\d.]+)", out)
    assert len(accuracies) == 6
    assert min(accuracies) > 0.4  # three classes
    (kept,) = numbers(r"16 → (\d+) states", out)
    assert kept < 16


def gate(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """examples/gate.sh on a tiny model whose labels are its own answers, `last` being this project's."""
    checkpoint = write_s5(folder / "tiny.safetensors")
    x = np.random.default_rng(5).normal(size=(40, 9, 3)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=outputs(str(checkpoint), x).argmax(-1))
    shim = folder / "bin" / "last"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lastcli "$@"\n')
    shim.chmod(0o755)
    given = {
        "MODEL": "tiny.safetensors",
        "DATA": "data.npz",
        "CALIBRATION": "data.npz",
        "FAIL_UNDER": "0.5",
    } | variables
    path = f"{shim.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(sys.path), **given, **variables}
    script = ["bash", str(EXAMPLES / "gate.sh"), "out"]
    return subprocess.run(script, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_gate_that_passes_leaves_the_smaller_model(tmp_path):
    done = gate(tmp_path, FAIL_OVER="0.5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("passed: out/small.safetensors\n")
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"small.safetensors", "gates.xml", "verify.xml"}


@pytest.mark.slow  # gates are asked in tests/verbs/test_gates.py
def test_a_gate_that_fails_writes_no_model(tmp_path):
    done = gate(tmp_path, FAIL_OVER="-1")
    assert done.returncode == 1, done.stderr
    assert not (tmp_path / "out" / "small.safetensors").exists()


def test_every_flag_of_the_gate_is_one_of_its_command():
    script = (EXAMPLES / "gate.sh").read_text().replace("\\\n", "")
    commands = re.findall(r"^last (\w+) (.*)$", script, flags=re.MULTILINE)
    assert [verb for verb, _ in commands] == ["sweep", "prune", "verify"]
    for verb, rest in commands:
        known = {name for flag in command_flags()[verb] for name in declarations(flag)}
        assert set(re.findall(r" (--[\w-]+)", f" {rest}")) <= known


def test_the_list_of_examples_names_every_script():
    text = (EXAMPLES / "README.md").read_text()
    scripts = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh")}
    assert set(re.findall(r"\(([\w.]+\.(?:py|sh))\)", text)) == scripts
    tests = Path(__file__).read_text()
    assert not {name for name in scripts if Path(name).stem not in tests}
