"""JSON, CSV and Markdown of every verb."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lastcli.errors import UsageError
from lastcli.report import FORMATS, as_csv, as_json, as_markdown, render
from lastcli.results import ConfigValue, RecipeShowResult, Result, plain
from tests.report import samples

CONTRACT = {
    "score": {"family", "method", "layers"},
    "prune": {
        *("method", "refit", "ratio", "states_before", "states_after", "parameters_before", "parameters_after"),
        *("bytes_before", "bytes_after", "layers", "out"),
    },
    "sweep": {"metric", "baseline", "n", "rows", "chosen"},
    "eval": {"metric", "value", "n"},
    "verify": {"ok", "max_abs_difference", "checks"},
    "inspect": {"family", "container", "layers", "states", "parameters", "bytes", "config"},
    "convert": {"out"},
    "bench": {"original", "pruned"},
}
PARTS = {
    ("score", "layers"): {"name", "states", "energy", "score", "max_abs_pole"},
    ("prune", "layers"): {"name", "states", "kept", "hinf_error_bound", "h2_error"},
    ("sweep", "rows"): {"method", "refit", "ratio", "states", "value", "drop", "ci_low", "ci_high", "layers"},
    ("verify", "checks"): {"name", "ok", "detail"},
}


def csv_rows(result: Result) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(as_csv(result))))


def test_csv_shows_no_control_characters_and_loses_nothing() -> None:
    name = 'a\x1b[2J\x07\u202eb,"c"\r\nd' + "x" * 5000
    for result in (samples.inspect(name), dataclasses.replace(samples.convert(), checkpoint=name)):
        text = as_csv(result)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e]", text)
        cells = [cell for row in csv_rows(result) for cell in row.values()]
        assert 'a\\x1b[2J\\x07\\u202eb,"c"\\r\\nd' + "x" * 5000 in cells


@pytest.mark.parametrize("result", samples.every(), ids=lambda r: r.command)
def test_documents_keep_the_contract(result: Any) -> None:
    text = as_json(result)
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert next(iter(document)) == "schema"
    assert document["schema"] == f"last.{result.command}/1"
    assert document.keys() >= CONTRACT[result.command]
    for (command, key), fields in PARTS.items():
        if command == result.command:
            assert all(part.keys() >= fields for part in document[key])
    assert text.isascii()


def test_layers_of_channels_are_lists_of_lists() -> None:
    assert np.shape(samples.score().to_json()["layers"][0]["energy"]) == (12,)
    assert np.shape(samples.score(multi=True).to_json()["layers"][0]["energy"]) == (3, 5)
    kept = np.array([[0, 2], [1, 3]])
    layer = dataclasses.replace(samples.prune().layers[0], kept=kept, multi=True, sets=2)
    assert samples.prune(layers=(layer,)).to_json()["layers"][0]["kept"] == [[0, 2], [1, 3]]
    assert samples.prune().to_json()["layers"][0]["kept"] == list(range(9))


def test_layers_hold_plain_lists_and_nothing_else_of_ours() -> None:
    layer = samples.score().to_json()["layers"][0]
    assert list(layer) == ["name", "states", "sets", "energy", "score", "max_abs_pole"]
    assert layer["score"] == list(samples.score().layers[0].score[0])
    fields = ["name", "states", "kept", "hinf_error_bound", "h2_error", "hinf_error", "hinf_exact", "dc_error"]
    fields.append("data_error")
    fields += ["states_before", "sets"]
    assert list(samples.prune().to_json()["layers"][0]) == fields


def test_config_shows_where_values_came_from() -> None:
    config = samples.inspect().to_json()["config"]
    assert config["conj_sym"] == {"value": True, "source": "sidecar"}


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (math.nan, None),
        (np.array([1.0, -np.inf]), [1.0, None]),
        ({"a": (1, Path("b"))}, {"a": [1, "b"]}),
        (10**20, 10**20),
    ],
)
def test_plain_types(value: object, wanted: object) -> None:
    found = plain(value)
    assert found == wanted
    assert type(found) is type(wanted)


def test_score_lists_every_state() -> None:
    rows = csv_rows(samples.score(multi=True))
    assert len(rows) == 4 * 3 * 5
    layer = samples.score(multi=True).layers[1]
    row = next(r for r in rows if (r["layer"], r["channel"], r["state"]) == (layer.name, "2", "3"))
    assert float(row["score"]) == layer.score[2, 3]


def test_sweep_rows_are_numbers() -> None:
    result = samples.sweep(2)
    rows = csv_rows(result)
    assert len(rows) == len(result.rows)
    for row, wanted in zip(rows, result.rows, strict=True):
        assert (float(row["ratio"]), float(row["value"]), int(row["states"])) == (
            wanted.ratio,
            wanted.value,
            wanted.states,
        )
        assert [int(number) for number in row["layers"].split()] == list(wanted.layers)
    assert [row["chosen"] for row in rows].count("1") == 1


def test_csv_survives_awkward_names() -> None:
    name = 'a,"b"\nc'
    assert csv_rows(samples.inspect(name))[0]["name"] == 'a,"b"\\nc'


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("result", samples.every(), ids=lambda r: r.command)
def test_every_form_of_every_result(result: Any, form: str) -> None:
    text = render(result, form)
    assert text.endswith("\n")
    assert text.strip()


def test_markdown_tables_are_whole() -> None:
    text = as_markdown(samples.inspect("a|b `c` <d> *e* _f_"))
    assert r"a\|b \`c\` \<d\> \*e\* \_f\_" in text
    for block in as_markdown(samples.sweep(2)).split("\n\n"):
        if block.startswith("|"):
            lines = block.splitlines()
            assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1


def test_unknown_form() -> None:
    with pytest.raises(UsageError, match="'xml'"):
        render(samples.evaluation(), "xml")


def test_nothing_heavy_is_imported() -> None:
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]; import lastcli.results, lastcli.report, lastcli.report.progress;"
        "import lastcli.evaluation.data, lastcli.evaluation.metrics, lastcli.evaluation.significance;"
        "from tests.report import samples; from lastcli.report import *; as_json(samples.sweep());"
        "print([m for m in ('jax', 'flax', 'orbax', 'rich', 'matplotlib', 'torch') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, str(root), str(root / "src")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_lists_are_one_cell_each() -> None:
    layer = dataclasses.replace(samples.prune().layers[0], kept=np.array([[0, 2], [1, 3]]), multi=True, sets=2)
    assert csv_rows(samples.prune(layers=(layer,)))[0]["kept"] == "0 2/1 3"
    options = {"columns": ConfigValue(value=["x=a", "y=b"], source="recipe")}
    shown = RecipeShowResult(recipe="r.yaml", options=options, model={"norm": ConfigValue(value="x", source="file")})
    wanted = [("option", "columns", "x=a; y=b", "recipe"), ("model", "norm", "x", "file")]
    assert [tuple(row.values()) for row in csv_rows(shown)] == wanted
