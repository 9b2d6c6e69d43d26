"""Curves and bars in characters."""

from __future__ import annotations

import dataclasses

import pytest

from lastcli.report import as_text
from lastcli.report.sketch import curve_sketch, layer_sketch
from tests.report import samples


def lines(drawing: object) -> list[str]:
    return ["".join(cell.text for cell in line) for line in drawing.lines]  # type: ignore[attr-defined]


def test_points_stand_at_their_ratio_and_value() -> None:
    rows = tuple(samples.sweep_row("last", "none", r, v) for r, v in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)))
    rows = tuple(dataclasses.replace(row, ci_low=None, ci_high=None) for row in rows)
    found = lines(curve_sketch(samples.sweep(rows=rows, chosen=None, baseline=1.0), 80))
    width = len(found[0]) - len("100.0% │")
    assert [line.find("●") for line in found[:9]] == [
        8,
        -1,
        -1,
        -1,
        8 + round(0.5 * (width - 1)),
        -1,
        -1,
        -1,
        7 + width,
    ]
    assert found[0].startswith("100.0% │")
    assert found[4].startswith(" 50.0% │")
    assert found[8].startswith("  0.0% │")
    assert found[10].split() == ["0%", "20%", "40%", "60%", "80%", "100%", "pruned"]


def test_several_lines_have_letters_and_the_chosen_point_its_own_sign() -> None:
    found = lines(curve_sketch(samples.sweep(3), 80))
    picture = "\n".join(found[:9])
    assert {"A", "B", "C"} & set(picture)
    assert picture.count("◆") == 1
    assert "A last   B obs + calibrated   C method2 + h2" in "\n".join(found)
    assert "◆ chosen" in found[-1]


@pytest.mark.parametrize("changes", [{"rows": samples.sweep().rows[:2]}, {"rows": ()}])
def test_two_points_are_no_curve(changes: dict[str, object]) -> None:
    assert curve_sketch(samples.sweep(chosen=None, **changes), 80) is None


def test_a_flat_curve_and_one_that_is_lost_are_drawn() -> None:
    rows = tuple(dataclasses.replace(row, value=0.98) for row in samples.sweep().rows)
    assert curve_sketch(samples.sweep(rows=rows, chosen=None), 80) is not None
    lost = (*rows[:4], dataclasses.replace(rows[4], value=float("nan")))
    assert curve_sketch(samples.sweep(rows=lost, chosen=lost[0]), 80) is not None


def test_bars_show_what_is_left_of_every_layer() -> None:
    result = samples.sweep(layer_states=(40, 20, 20, 20))
    found = lines(layer_sketch(result, 80))
    kept = result.chosen.layers  # type: ignore[union-attr]
    full = round(24 * kept[0] / 40)
    assert found[0] == f"{samples.LAYERS[0]}  {'█' * full}{'░' * (24 - full)}  {kept[0]} of 40"
    assert layer_sketch(samples.sweep(chosen=None), 80) is None


def test_only_a_terminal_gets_drawings_and_they_are_ascii_where_it_wants_that() -> None:
    assert "└" not in as_text(samples.sweep())
    wide = as_text(samples.sweep(notes=("The end.",)), 200)
    assert wide.index("└") < wide.index("The end.")
    plain = as_text(samples.sweep(), 80, ascii_only=True)
    assert plain.isascii()
    assert "+-----" in plain
    assert "\\u" not in plain
