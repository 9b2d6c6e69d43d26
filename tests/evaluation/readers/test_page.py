"""docs/data.md: its blocks run as they are written, and its table has every reader."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from lastcli.evaluation.readers import READERS
from tests.docs.blocks import ROOT, blocks, commands, run_python

PAGE = "docs/data.md"
TEXT = (ROOT / PAGE).read_text()
ROWS = dict(re.findall(r"^\| (\w+) \| (.*) \|$", TEXT, flags=re.MULTILINE))


def test_every_block_runs_and_measures_the_bundled_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: Callable[..., tuple[int, str, str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    found = {}
    for block in blocks(PAGE):
        if block.language == "python":
            run_python(block, namespace, last)
        elif block.language == "yaml":
            (tmp_path / "recipe.yaml").write_text(block.text)
            found["recipe"] = last("eval", "bundled", "--recipe", "recipe.yaml", "--limit", "100", "--json")
        else:
            assert block.language == "console"
            for program, *arguments in commands(block):
                assert program == "last"
                found[" ".join(arguments)] = last(*arguments, "--json")
    wrong = {command: err for command, (code, _, err) in found.items() if code}
    assert not wrong
    values = {command: json.loads(out) for command, (_, out, _) in found.items()}
    first = json.loads(last("eval", "bundled", "--data", "bundled:test", "--limit", "100", "--json")[1])
    for command, result in values.items():
        n = 40 if "steps.csv" in command else 100
        assert result["n"] == n, command
        if n == 100 and "--seed" not in command:
            assert result["value"] == first["value"], command
        assert result["value"] > 0.9, command


def test_the_table_has_every_reader_and_no_other() -> None:
    assert set(ROWS) - {"format"} == set(READERS)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name, reader in READERS.items():
        extra = re.search(r"`lastcli\[(\w+)\]`", ROWS[name])
        assert (extra and extra[1]) == reader.extra, name
        assert reader.extra is None or reader.extra in extras
        shown = ROWS[name].split(" | ")[0]
        assert all(suffix.rpartition(".")[2][-5:] in shown for suffix in reader.suffixes[:1]), name
        assert (reader.folder is None) == ("folder" not in shown and "FOLDER" not in ROWS[name]), name


def test_no_two_readers_claim_one_file() -> None:
    suffixes = [suffix for reader in READERS.values() for suffix in reader.suffixes]
    starts = [start for reader in READERS.values() for start in reader.begins]
    assert len(set(suffixes)) == len(suffixes)
    assert len(set(starts)) == len(starts)
