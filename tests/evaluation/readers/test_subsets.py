"""Which examples are looked at: the first ones, a range, or some drawn with a seed; and what the command line says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lastcli.errors import InputError, UsageError
from lastcli.evaluation.data import load_split
from lastcli.evaluation.subsets import drawn_rows

Y = np.repeat([0, 1, 2, 5], [50, 30, 15, 5])


def test_every_class_has_its_share() -> None:
    for count in (1, 7, 20, 99, 100):
        rows = drawn_rows(100, count, Y, 0, "d")
        assert len(set(rows.tolist())) == count
        assert (np.diff(rows) > 0).all()
        taken = np.array([(Y[rows] == c).sum() for c in (0, 1, 2, 5)])
        assert (np.abs(taken - np.array([50, 30, 15, 5]) * count / 100) < 1).all()
    np.testing.assert_array_equal(drawn_rows(100, 20, Y, 3, "d"), drawn_rows(100, 20, Y, 3, "d"))
    assert (drawn_rows(100, 20, Y, 3, "d") != drawn_rows(100, 20, Y, 4, "d")).any()


def test_without_classes_every_row_is_as_likely() -> None:
    for y in (None, np.zeros((10, 2)), np.linspace(0, 1, 10)):
        counts = sum(np.bincount(drawn_rows(10, 3, y, seed, "d"), minlength=10) for seed in range(600))
        assert (np.abs(np.asarray(counts) - 180) < 60).all()


def test_a_limit_means_what_it_meant(tmp_path: Path) -> None:
    x = np.arange(400.0).reshape(100, 4)
    np.savez(tmp_path / "d.npz", x=x, y=Y)
    path = tmp_path / "d.npz"
    for limit, seed, rows in (("20", None, slice(20)), ("20:30", None, slice(20, 30)), ("20:30", 1, slice(20, 30))):
        np.testing.assert_array_equal(load_split(path, limit=limit, seed=seed).x, x[rows])
    drawn = drawn_rows(100, 20, Y, 1, "d")
    np.testing.assert_array_equal(load_split(path, limit="20", seed=1).x, x[drawn])
    blind = load_split(path, limit="20", seed=1, labels=False)
    np.testing.assert_array_equal(blind.x, x[drawn_rows(100, 20, None, 1, "d")])
    assert blind.y is None
    part = load_split(f"{path}:40:60", limit="5", seed=1)
    np.testing.assert_array_equal(part.x, x[40:60][drawn_rows(20, 5, Y[40:60], 1, "d")])
    with pytest.raises(InputError, match="has 100 examples; 101 cannot be drawn"):
        load_split(path, limit="101", seed=0)
    with pytest.raises(UsageError, match="cannot be drawn"):
        load_split(path, limit="-3", seed=0)


def test_the_command_line_says_what_it_took(tiny: Path, data: Path, last, tmp_path: Path) -> None:
    with np.load(data) as arrays:
        x, y = arrays["x"], arrays["y"]
    y[:10], y[10:] = 1, 0
    np.savez(data, x=x, y=y)
    np.save(tmp_path / "x.npy", 2 * x + 1)
    np.save(tmp_path / "y.npy", y)
    plain = json.loads(last("eval", tiny, "--data", data, "--json")[1])
    normalised = ("--data", "x.npy", "--mean", "1", "--std", "2,2,2")
    code, out, err = last("eval", tiny, *normalised, "--json")
    assert code == 0, err
    assert json.loads(out)["value"] == plain["value"]
    (tmp_path / "recipe.yaml").write_text("data: x.npy\nmean: 1\nstd: 2\nlimit: 20\nseed: 0\n")
    code, out, err = last("eval", tiny, "--recipe", "recipe.yaml", "--json")
    assert (code, json.loads(out)["n"]) == (0, 20), err
    named = np.where(y == 1, "yes", "no")
    rows = "\n".join(f"{i},{a},{b},{c},{named[i]}" for i, s in enumerate(x) for a, b, c in s)
    (tmp_path / "d.csv").write_text("series,a,b,c,label\n" + rows)
    code, out, err = last("eval", tiny, "--data", "d.csv", "--json")
    assert json.loads(out)["value"] == plain["value"]
    assert "classes of d.csv: 0 = no, 1 = yes" in err
    code, _, err = last(
        "prune", tiny, "--ratio", "0.3", "--calibration", "gone.ts", "--dry-run", "--refit", "calibrated"
    )
    assert code == 3
    assert "no data file gone.ts" in err
