"""The criterion, the method and the refit that docs/development.md adds: one file and one line each, as shown."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import lastcli
from lastcli.plan import METHODS, REFITS, Method, Refit

PAGE = (Path(__file__).parents[2] / "docs" / "development.md").read_text()
SECTION = PAGE.split("## A criterion, a method, a refit")[1].split("\n## ")[0]
BLOCKS = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
CRITERION, METHOD, PYTHON, REFIT_FILE, REFIT = BLOCKS


def install(monkeypatch, name: str, code: str) -> ModuleType:
    """The code as the module `name`."""
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(code, f"docs/development.md: {name}", "exec"), module.__dict__)
    return module


@pytest.fixture
def added(monkeypatch):
    """Both files and both lines of the page in place; gives the two modules."""
    modules = [
        install(monkeypatch, "lastcli.engine.dc_gain", CRITERION),
        install(monkeypatch, "lastcli.reduction.rescaled", REFIT_FILE),
    ]
    for registry, line in ((METHODS, METHOD), (REFITS, REFIT)):
        (entry,) = eval(line, {"Method": Method, "Refit": Refit})  # the line ends with a comma: a tuple of one
        monkeypatch.setitem(registry, entry.name, entry)
    return modules


def test_the_files_and_lines_of_the_page_work_on_the_command_line(last, tiny, data, added):
    code, out, err = last(
        "sweep", tiny, "--methods", "dc,last", "--refits", "none,rescaled", "--ratios", "0.5", "--data", data
    )
    assert code == 0, err
    assert "dc + rescaled" in out
    assert last("prune", tiny, "--method", "dc", "--ratio", "0.4", "--out", "p.safetensors")[0] == 0
    assert last("verify", tiny, "p.safetensors")[0] == 0
    assert all(word in last("methods")[1] for word in ("dc", "rescaled"))


def test_the_criterion_is_the_gain_at_frequency_zero(tiny, added):
    with lastcli.open(tiny) as model:
        for system, layer in zip(model.systems, lastcli.score(model, method="dc").layers):
            for state in range(system.states):
                one = system.C[0, 0][:, [state]] @ system.B[0][[state]] / (1 - system.poles[0, state])
                np.testing.assert_allclose(layer.energy[0, state], np.linalg.norm(one) ** 2, rtol=1e-10)


def test_the_refit_makes_the_layer_as_loud_as_it_was(tiny, added):
    out = tiny.with_name("loud.safetensors")
    lastcli.prune(tiny, out, ratio=0.5, refit="rescaled")
    with lastcli.open(tiny) as before, lastcli.open(out) as after:
        for old, new in zip(before.systems, after.systems):
            assert added[1]._size(new) == pytest.approx(added[1]._size(old), rel=1e-5)


def test_the_python_of_the_page_runs(added):
    exec(PYTHON, {"lastcli": lastcli, "dc_gain": added[0].dc_gain})
