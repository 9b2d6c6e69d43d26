"""Some thousand mutated files are read as they were or refused; the long run is `python -m tests.fuzz`."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import main
from tests.fuzz.run import run_subject
from tests.fuzz.subjects import SUBJECTS


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_mutated_file(name, tmp_path):
    if "torch" in name:
        pytest.importorskip("torch")
    if "joblib" in name:
        pytest.importorskip("joblib")
    cases = 60 if "orbax" in name else 150
    outcomes, findings = run_subject(name, range(cases), 0, tmp_path / "cases")
    assert findings == []
    assert sum(outcomes.values()) == cases
    assert outcomes["refused"] > cases // 10


@pytest.mark.slow
def test_twenty_thousand_mutated_files():
    pytest.importorskip("torch")
    assert main(["--cases", "20000", "--seed", "0"]) == 0
