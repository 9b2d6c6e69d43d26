"""Many local devices: eight virtual ones in a process of their own say what one says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lastcli.errors import UsageError
from lastcli.parallel import devices, processes
from lastcli.plan import build_plan

ROOT = Path(__file__).parents[2]

BEGIN = """
import json, jax, numpy as np
import lastcli
from lastcli.evaluation import passes
from lastcli.parallel import devices, processes
from lastcli.reduction.calibration import collect_moments
from lastcli.reduction.lessons import Lessons
from lastcli.reduction.match_output import match_output
from tests.evaluation import models

assert jax.device_count() == 8
forward, params, layers = models.forward(models.Counted()), models.parameters(), models.systems()
split = models.split(23)


def apart(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)) for a, b in pairs)


def both(function):
    one = function()
    with devices.using("all"):
        return one, function()
"""

PASSES = """
def rows():
    placed = passes.Runner(forward, {}).batch(split.batch(0, 8))
    return [shard.data.shape[0] for shard in placed[0].addressable_shards]


moments = both(lambda: list(collect_moments(forward, params, layers, split.batches(5))))
print(json.dumps({"rows": both(rows), "apart": apart(*moments)}))
"""

MATCHED = """
reduced = models.masked(layers, 3)
matched = both(
    lambda: match_output(Lessons(forward, params, layers, split.batches(5)), reduced, steps=3, learning_rate=1e-2)
)
print(json.dumps({"apart": apart(*matched)}))
"""

SWEEPS = """
print(json.dumps([
    [
        [row.value, list(row.layers), row.p_value, row.max_difference]
        for row in lastcli.sweep(
            "tiny.safetensors", data="data.npz", calibration="data.npz", ratios="0.5", method="obs",
            refits="calibrated,sequential", devices=count,
        ).rows
    ]
    for count in ("1", "8")
]))
"""


def environment(count: int) -> dict[str, str]:
    return os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
    }


def on_eight(script: str, folder: Path) -> Any:
    """What the script prints in a process with eight virtual devices."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script], env=environment(8), cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_moments_of_eight_devices_are_those_of_one(tmp_path: Path) -> None:
    found = on_eight(PASSES, tmp_path)
    assert found["rows"] == [[8], [1] * 8]
    assert found["apart"] < 1e-6


@pytest.mark.slow
def test_eight_devices_match_the_output_as_one_does(tmp_path: Path) -> None:
    assert on_eight(MATCHED, tmp_path)["apart"] < 1e-6


@pytest.mark.slow
def test_a_sweep_on_eight_devices_says_what_one_says(tiny: Path, data: Path) -> None:
    for one, eight in zip(*on_eight(SWEEPS, tiny.parent), strict=True):
        assert eight[:3] == one[:3]
        assert eight[3] == pytest.approx(one[3], abs=1e-6)


def test_more_devices_than_there_are_is_a_sentence() -> None:
    with devices.using("99"), pytest.raises(UsageError, match=r"--devices 99: JAX finds 1 device here \(cpu\)"):
        devices.local_mesh()
    assert devices.local_mesh().size == 1


@pytest.mark.parametrize("wrong", ["0", "-1", "some", "1.5"])
def test_devices_are_a_number_or_all(wrong: str) -> None:
    with pytest.raises(UsageError, match="a number of devices or all"):
        build_plan({"devices": wrong})
    assert build_plan({"devices": 4}).devices == "4"


def test_rows_are_spread_and_come_back() -> None:
    _, spread = devices.shardings(devices.joint_mesh())
    array = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(np.asarray(devices.rows_of(array, spread)), array)


@pytest.mark.parametrize(("asked", "wanted"), [("1", ["0a", "1a"]), ("all", ["0a", "0b", "1a", "1b"])])
def test_the_joint_mesh_has_as_many_devices_of_each_process_in_their_order(
    asked: str, wanted: list, monkeypatch
) -> None:
    import jax

    there = [SimpleNamespace(process_index=int(name[0]), name=name) for name in ("1a", "0a", "1b", "0b")]
    monkeypatch.setattr(processes, "_PLACE", [(0, 2)])
    monkeypatch.setattr(jax, "devices", lambda: there)
    monkeypatch.setattr(jax, "local_devices", lambda: [one for one in there if one.process_index == 0])
    monkeypatch.setattr(jax.sharding, "Mesh", lambda found, axes: found)
    with devices.using(asked):
        assert [one.name for one in devices.joint_mesh()] == wanted
    del there[2]
    if asked == "all":
        with devices.using(asked), pytest.raises(UsageError, match=r"different numbers of devices; .* with --devices"):
            devices.joint_mesh()


@pytest.mark.parametrize("mine", [0, 1, 2])
def test_a_process_places_its_own_rows_only(mine: int, monkeypatch) -> None:
    import jax

    placed: list[Any] = []
    monkeypatch.setattr(processes, "_PLACE", [(mine, 3)])
    monkeypatch.setattr(jax, "make_array_from_process_local_data", lambda *given: placed.append(given))
    array, spread = np.arange(12).reshape(6, 2), SimpleNamespace(is_fully_addressable=False)
    devices.rows_of(array, spread)
    ((where, rows, shape),) = placed
    assert (where, shape) == (spread, (6, 2))
    np.testing.assert_array_equal(rows, array[2 * mine : 2 * mine + 2])
