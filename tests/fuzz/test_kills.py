"""A run that is killed leaves the old output or the new one, never neither."""

from __future__ import annotations

import pytest

from tests.fuzz.killing import kill
from tests.fuzz.kills import main


@pytest.mark.parametrize(("kind", "exchanged"), [("msgpack", True), ("shards", False), ("orbax", True)])
def test_killed_at_every_fifth_call(kind, exchanged, tmp_path):
    (tmp_path / "whole").mkdir()
    total = kill(kind, -1, tmp_path / "whole", old=True, exchanged=exchanged)[0]
    found = set()
    for number in range(total - 1, 0, -5):
        folder = tmp_path / str(number)
        folder.mkdir()
        found.add(kill(kind, number, folder, old=True, exchanged=exchanged)[1])
    assert found == {"old", "new"}


@pytest.mark.slow
def test_two_hundred_kills():
    pytest.importorskip("torch")
    assert main(["--kills", "200"])["kills"] == 200
