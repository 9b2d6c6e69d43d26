"""The release is built, installed and run: minutes, and downloads of all dependencies."""

from __future__ import annotations

import sys

import pytest

from tests.release.__main__ import main


@pytest.mark.slow
def test_a_release_installs_and_runs(tmp_path, capsys):
    assert main(["--python", sys.executable, "--keep", str(tmp_path)]) == 0
    assert {path.suffix for path in tmp_path.iterdir()} == {".whl", ".gz"}
    assert capsys.readouterr().out.count("commands ran") == 2
