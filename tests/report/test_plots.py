"""The picture of a sweep."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from lastcli.errors import UsageError
from lastcli.report.plots import plot, plot_format, plot_sweep
from lastcli.results import Anatomy, LayerAnatomy
from tests.report import samples
from tests.report.anatomies import sweep

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


def test_scores_and_poles_are_drawn() -> None:
    drawn = dataclasses.replace(samples.inspect(), anatomy=sweep().anatomy)
    for result in (samples.score(), samples.score(multi=True), drawn):
        for form, magic in MAGIC.items():
            assert plot(result, form).startswith(magic)
    assert "encoder/layers_3/seq -->" in plot(samples.score(), "svg").decode()


def test_nothing_is_drawn_of_what_has_no_picture() -> None:
    with pytest.raises(UsageError, match="sweep, score and inspect"):
        plot(samples.bench(), "png")
    layer = LayerAnatomy(name="mamba", states=4, sets=1)
    selective = dataclasses.replace(samples.inspect(), anatomy=Anatomy(layers=(layer,)))
    with pytest.raises(UsageError, match="selective"):
        plot(selective, "png")


def labels(text: str) -> set[str]:
    return {line.split("-->")[0].split("<!--")[1].strip() for line in text.splitlines() if "<!--" in line}


def test_layers_without_a_finite_energy_have_no_line_and_many_no_legend() -> None:
    first, *others = samples.score().layers
    lost = dataclasses.replace(first, energy=np.full((1, 12), np.inf))
    text = plot(dataclasses.replace(samples.score(), layers=(lost, *others)), "svg").decode()
    assert labels(text) >= {layer.name for layer in others}
    assert first.name not in labels(text)
    many = tuple(dataclasses.replace(others[0], name=f"layer {i}") for i in range(13))
    assert "layer 1" not in labels(plot(dataclasses.replace(samples.score(), layers=many), "svg").decode())


def test_a_curve_without_intervals_has_no_band() -> None:
    bare = tuple(dataclasses.replace(row, ci_low=None) for row in samples.sweep().rows)
    with_band, without = (plot_sweep(samples.sweep(rows=rows), "svg").decode() for rows in (samples.sweep().rows, bare))
    assert "FillBetween" in with_band
    assert "FillBetween" not in without
