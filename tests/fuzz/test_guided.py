"""The fuzzer that looks for new branches, where atheris is installed: `pip install -e '.[fuzz]'`, `pytest -m slow`."""

from __future__ import annotations

import pytest

from tests.fuzz.guided import main


@pytest.mark.slow
def test_a_minute_for_every_file():
    pytest.importorskip("atheris")
    assert main(["--seconds", "60"]) == 0
