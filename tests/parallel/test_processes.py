"""Several real processes on this machine: the table of one, one voice, and one end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lastcli.engine.engines import engine_of
from lastcli.errors import UsageError
from lastcli.plan import build_plan
from lastcli.reduction.calibration import _whole, collect_moments
from tests.evaluation import models
from tests.parallel.test_devices import environment

SMALL = (
    *("sweep", "tiny.safetensors", "--data", "data.npz", "--calibration", "data.npz", "--ratios", "0.5"),
    *("--method", "obs", "--refit", "calibrated", "--json"),
)
SWEEP = (
    *("sweep", "tiny.safetensors", "--data", "data.npz", "--calibration", "data.npz", "--ratios", "0,0.3,0.6"),
    *("--method", "obs", "--refits", "calibrated,sequential", "--json"),
)
BEST = (
    *("prune", "tiny.safetensors", "--method", "best", "--max-drop", "0.5", "--data", "data.npz"),
    *("--calibration", "data.npz", "--budget", "20s", "--json"),
)
PRUNE = ("prune", "tiny.safetensors", "--ratio", "0.4", "--calibration", "data.npz", "--refit", "match", "--json")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def started(count: int, folder: Path, *arguments: str, slurm: bool = False) -> list[subprocess.Popen[str]]:
    port, running = free_port(), []
    for index in range(count):
        place = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", str(count), "--process-id", str(index)]
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "lastcli", *arguments, *(["--distributed"] if slurm else place)],
                env=environment(1) | (slurm_task(count, index, port) if slurm else {}),
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return running


def slurm_task(count: int, index: int, job: int) -> dict[str, str]:
    """What Slurm says to a task of a step on this machine."""
    return {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(count),
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index),
    }


def ended(running: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    try:
        found = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(running, found)]


def check_table(last, found: list[tuple[int, str, str]], command: tuple[str, ...]) -> None:
    assert [code for code, _, _ in found] == [0] * len(found), found[0][2][-2000:]
    assert all(out == "" and "last" not in err for _, out, err in found[1:]), "only process 0 speaks"
    code, out, _ = last(*command)
    assert code == 0
    one, several = json.loads(out), json.loads(found[0][1])
    assert several["baseline"] == one["baseline"]
    for before, after in zip(one["rows"], several["rows"], strict=True):
        for key in ("method", "refit", "ratio", "value", "drop", "p_value", "layers", "parameters", "ci_low"):
            assert after[key] == before[key], key
        for key in ("max_difference", "mean_difference"):
            assert after[key] == pytest.approx(before[key], abs=1e-6)


def test_two_processes_print_the_table_of_one(last, tiny: Path, data: Path) -> None:
    check_table(last, ended(started(2, tiny.parent, *SMALL)), SMALL)


@pytest.mark.slow
def test_two_processes_sweep_with_kept_rows_and_write_one_report(last, tiny: Path, data: Path) -> None:
    files = ("--resume", "rows.jsonl", "--report", "page.html", "--junit", "gates.xml", "--fail-over", "1")
    found = ended(started(2, tiny.parent, *SWEEP, *files))
    check_table(last, found, SWEEP)
    page = (tiny.parent / "page.html").read_text()
    assert "<svg" in page
    assert "process_id" not in page.partition("Recipe")[2]
    assert (tiny.parent / "gates.xml").is_file()
    code, out, err = last(*SWEEP, "--resume", "rows.jsonl")
    assert (code, json.loads(out)["rows"]) == (0, json.loads(found[0][1])["rows"])
    assert "Going on from 6" in err


@pytest.mark.slow
def test_two_processes_search_the_best_within_one_budget(last, tiny: Path, data: Path) -> None:
    found = ended(started(2, tiny.parent, *BEST, "--out", "small.safetensors"))
    assert [code for code, _, _ in found] == [0, 0], found[0][2][-2000:]
    assert found[1][1] == ""
    recipe = (tiny.parent / "small.recipe.yaml").read_text()
    assert "process" not in recipe
    assert json.loads(found[0][1])["recipe"] == "small.recipe.yaml"
    assert last("prune", "--recipe", "small.recipe.yaml", "--out", "again.safetensors")[0] == 0


@pytest.mark.slow
def test_four_tasks_of_slurm_print_the_table_of_one(last, tiny: Path, data: Path) -> None:
    check_table(last, ended(started(4, tiny.parent, *SWEEP, slurm=True)), SWEEP)


@pytest.mark.slow
def test_two_processes_write_one_checkpoint(last, tiny: Path, data: Path) -> None:
    found = ended(started(2, tiny.parent, *PRUNE, "--out", "small.safetensors"))
    assert [code for code, _, _ in found] == [0, 0], found[0][2][-2000:]
    assert found[1][1] == ""
    assert last("eval", "small.safetensors", "--data", data)[0] == 0
    assert [path.name for path in tiny.parent.glob(".last*")] == []


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_is_killed_ends_the_other_with_an_error(tiny: Path, data: Path, victim: int) -> None:
    running = started(2, tiny.parent, *PRUNE, "--dry-run")
    time.sleep(15)
    running[victim].kill()
    found = ended(running)
    assert found[1 - victim][0] != 0
    assert found[victim][0] == -signal.SIGKILL


@pytest.mark.slow
def test_an_error_in_one_process_is_the_exit_code_of_all(tiny: Path, data: Path) -> None:
    running = started(2, tiny.parent, *PRUNE, "--dry-run")
    time.sleep(10)
    os.kill(running[1].pid, signal.SIGTERM)
    found = ended(running)
    assert found[0][0] == found[1][0] == 130
    assert "process 1 of the run ended" in found[0][2]
    assert "Traceback" not in found[0][2]


def test_moments_of_parts_are_those_of_the_whole() -> None:
    split = models.split(23)
    forward, params, layers = models.forward(models.Counted()), models.parameters(), models.systems()
    batches = list(split.batches(5))
    whole = collect_moments(forward, params, layers, batches)
    parts = [collect_moments(forward, params, layers, batches[k::3]) for k in range(3)]
    empty = [engine_of(system).empty_moments(system) for system in layers]
    for layer, wanted in enumerate(whole):
        found = _whole([part[layer] for part in (*parts, empty)])
        assert float(found.weight) == float(wanted.weight) > 0
        for name in ("features", "input_features", "inputs", "cross", "target_inputs", "energy"):
            np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"coordinator": "host:1"}, "all three or none"),
        ({"num_processes": 2, "process_id": 0}, "all three or none"),
        ({"coordinator": "host", "num_processes": 2, "process_id": 0}, "HOST:PORT"),
        ({"coordinator": "host:0", "num_processes": 2, "process_id": 0}, "HOST:PORT"),
        ({"coordinator": "host:99", "num_processes": 2, "process_id": 2}, "between 0 and 1"),
    ],
)
def test_who_the_processes_are_is_said_whole(given: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        build_plan(given)
