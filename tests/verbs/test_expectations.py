"""The documents about the bundled model are those that scripts out there rely on."""

from __future__ import annotations

import json
import math

import pytest

from tests.verbs.expectations import COMMANDS, FOLDER, document, leaves

# Figures that come out of float32 forward passes: processors differ in the last bit.
MEASURED = ("max_difference", "mean_difference", "value", "drop", "ci_low", "ci_high", "p_value", "baseline")
ONE_EXAMPLE = 1 / 360
# Elimination costs are differences of moments that such passes gave.
FROM_INPUTS = 1e-4


def close(path, wanted, got, tolerance) -> bool:
    if isinstance(wanted, float) and isinstance(got, float):
        if path[-1] in MEASURED or (len(path) > 1 and path[-2] == "baseline_ci"):
            return math.isclose(wanted, got, rel_tol=1e-2, abs_tol=2.5 * ONE_EXAMPLE)
        return math.isclose(wanted, got, rel_tol=tolerance, abs_tol=1e-12)
    return wanted == got


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_prints_what_it_printed(name):
    wanted = json.loads((FOLDER / f"{name}.json").read_text())
    got = json.loads(json.dumps(document(COMMANDS[name])))
    for found in (wanted, got):
        found.pop("seconds", None)
    before, after = dict(leaves(wanted)), dict(leaves(got))
    assert before.keys() == after.keys()
    tolerance = FROM_INPUTS if "obs" in name or "calibrated" in name else 1e-6
    wrong = {
        path: (before[path], after[path]) for path in before if not close(path, before[path], after[path], tolerance)
    }
    assert not wrong
