"""What a run takes at its peak."""

from __future__ import annotations

import time

import numpy as np
import pytest

from lastcli.evaluation import memory

MB = 1 << 20
heap = pytest.mark.skipif(memory._heap() is None, reason="the C library does not count its heap")


# read while the tests are collected, before conftest.py shortens them
SHIPPED = {name: getattr(memory, name) for name in ("LOOKS", "RUNS", "SECONDS", "settle")}


@pytest.fixture(autouse=True)
def _as_a_user_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SHIPPED.items():
        monkeypatch.setattr(memory, name, value)


@heap
def test_what_a_run_holds_at_once_is_counted_and_what_was_there_is_not() -> None:
    before = np.ones(24 * MB, np.uint8)

    def run() -> None:
        first = np.ones(16 * MB, np.uint8)
        time.sleep(0.02)
        second = np.ones(16 * MB, np.uint8)
        time.sleep(0.02)
        del first, second
        time.sleep(0.01)
        np.ones(8 * MB, np.uint8)

    found = memory.peak_of(run)
    assert found is not None
    assert found[0] == pytest.approx(32 * MB, rel=0.1)
    assert found[1] == memory.PROCESS
    assert before.any()


@heap
def test_an_error_of_the_run_is_the_callers() -> None:
    def run() -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        memory.peak_of(run)


class Device:
    """A device that counts one peak for the whole process."""

    def __init__(self) -> None:
        self.in_use, self.peak = 100, 100

    def memory_stats(self) -> dict[str, int]:
        return {"bytes_in_use": self.in_use, "peak_bytes_in_use": self.peak}

    def run(self, needs: int) -> None:
        self.peak = max(self.peak, self.in_use + needs)


def test_a_device_says_its_own_peak_once(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    monkeypatch.setattr(memory.jax, "local_devices", lambda: [device])
    assert memory.peak_of(lambda: device.run(30)) == (30, memory.DEVICE)
    assert memory.peak_of(lambda: device.run(50)) == (50, memory.DEVICE)
    assert memory.peak_of(lambda: device.run(40)) is None  # the peak is that of the run before
