"""The projects whose code the pages of docs/families import: stand-ins, or with LAST_UPSTREAM their own.

`LAST_UPSTREAM` names a folder with checkouts as CHECKOUTS calls them; what they import has to be installed. Then the
same pages run against them, which shows that the stand-ins are true.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# stand-in → its project's folder under LAST_UPSTREAM, with the place of its packages
CHECKOUTS = {
    "s4_repository": "s4",
    "dss": "dss",
    "s5_pytorch": "s5-pytorch",
    "lru_torch": "lru-reduction",
    "neural_ssm": "SSM/src",
    "mega": "mega",
    "attenuate": "aTENNuate",
    "s5_flax": "S5",
    "event_ssm": "event-ssm",
    "annotated_s4": "annotated-s4",
    "minimal_lru": "minimal-LRU",
    "linoss": "linoss",
}


def install(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """Make the project's modules importable in this test.

    Returns the stand-ins: what a project keeps in a script that nobody can import is taken from them in any case.
    """
    stand_in = importlib.import_module(f"tests.docs.standins.{'lru_torch' if name == 'neural_ssm' else name}")
    roots = {module.partition(".")[0] for module in stand_in.MODULES}
    for known in [known for known in sys.modules if known.partition(".")[0] in roots]:
        monkeypatch.delitem(sys.modules, known)
    upstream = os.environ.get("LAST_UPSTREAM")
    if upstream:
        monkeypatch.syspath_prepend(str(Path(upstream, CHECKOUTS[name])))
        return stand_in
    for path, members in stand_in.MODULES.items():
        parts = path.split(".")
        for end in range(1, len(parts) + 1):
            whole = ".".join(parts[:end])
            if whole not in sys.modules:
                module = ModuleType(whole)
                module.__path__ = []  # type: ignore[attr-defined]
                monkeypatch.setitem(sys.modules, whole, module)
        for member, value in members.items():
            monkeypatch.setattr(sys.modules[path], member, value, raising=False)
    return stand_in
