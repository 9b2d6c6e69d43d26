"""The n-th open, write, fsync, rename or read fails, for every n: the old output is whole, or the new one is."""

from __future__ import annotations

import errno
import os

import pytest

from lastcli.containers import atomic
from lastcli.errors import LastError
from tests.fuzz.calls import Calls, counted
from tests.fuzz.outputs import OUTPUTS, state


def fail() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def run(output, folder, number: int, *, force: bool) -> tuple[bool, str | None, bool]:
    """One run whose call `number` fails: (whether it came to it, what stands then, whether the run succeeded)."""
    calls = Calls(number, fail, folder)
    succeeded = True
    try:
        with counted(calls):
            output.write(folder, "new", force=force)
    except LastError:
        succeeded = False
    return len(calls.made) > number, state(folder / output.name), succeeded


CASES = [
    *((kind, old, True) for kind in OUTPUTS for old in (True, False)),
    *((kind, True, False) for kind in ("shards", "orbax")),
]


@pytest.mark.parametrize(("kind", "old", "exchanged"), CASES)
def test_every_call_fails_once(kind, old, exchanged, tmp_path, monkeypatch):
    if kind == "torch":
        pytest.importorskip("torch")
    if not exchanged:
        monkeypatch.setattr(atomic, "exchange", lambda first, second: False)
    output = OUTPUTS[kind]
    number, reached = 0, True
    while reached:
        folder = tmp_path / str(number)
        folder.mkdir()
        if old:
            output.write(folder, "old", force=False)
        reached, stands, succeeded = run(output, folder, number, force=old)
        assert stands in ("new", "old" if old else None), number
        assert stands == "new" or not succeeded, number
        output.write(folder, "old", force=True)
        assert state(folder / output.name) == "old"
        left = {path.name for path in folder.iterdir()} - {output.name, "x.json"}
        assert not left, number
        number += 1
    assert number > 15
