"""The picture of a sweep."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from lastcli.errors import UsageError
from lastcli.report.plots import plot_format, plot_sweep
from tests.report import samples

MAGIC = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("form", MAGIC)
def test_formats(form: str) -> None:
    assert plot_format(Path(f"a.{form.upper()}")) == form
    assert plot_sweep(samples.sweep(2), form).startswith(MAGIC[form])


def test_every_method_is_in_the_legend() -> None:
    rows = (samples.sweep_row("_$x$ [b]", "none", 0.5, 0.9), samples.sweep_row("obs", "h2", 0.5, 0.9))
    text = plot_sweep(samples.sweep(rows=rows, chosen=rows[1]), "svg").decode()
    for label in ("obs + h2", "_$x$ [b]", "full model", "chosen", "states pruned (%)"):
        assert f"{label} -->" in text.replace("\\$", "$")


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"\.png, \.svg, \.pdf"):
        plot_format(Path("a.bmp"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"lastcli\[plot\]"):
        plot_format(Path("b.png"))
