"""docs/scale.md: its commands run, and its job files name options that there are."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml

from lastcli.cli.reference import command_flags, declarations
from tests.docs.blocks import blocks, commands

PAGE = "docs/scale.md"
BLOCKS = blocks(PAGE)


def check_options(words: list[str]) -> None:
    command, rest = words[1], words[2:]
    flags = {name for flag in command_flags()[command] for name in declarations(flag)}
    given = [word for word in rest if word.startswith("-")]
    assert given
    assert not set(given) - flags


@pytest.mark.usefixtures("short_searches")
@pytest.mark.slow
def test_the_consoles_of_the_page_run(last, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = ""
    for block in (block for block in BLOCKS if block.language == "console"):
        for words in commands(block):
            code, _, err = last(*words[1:])
            assert code == 0, f"{block.where}: {err}"
            said += err
    assert "Going on from 3 finished rows" in said


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "bash"], ids=lambda block: block.where
)
def test_scripts_name_options_that_there_are(block) -> None:
    lines = [line for line in block.text.splitlines() if re.match(r"(srun )?last ", line)]
    assert lines
    for line in lines:
        check_options(shlex.split(line.partition(" > ")[0].removeprefix("srun ")))


def test_the_kubernetes_job_is_an_indexed_job_behind_a_service_of_its_name() -> None:
    (block,) = (block for block in BLOCKS if block.language == "yaml")
    service, job = yaml.safe_load_all(block.text)
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"]
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"] == job["metadata"]["name"]
    # the text None, not the null of YAML
    assert service["spec"] == {"clusterIP": "None", "selector": {"job-name": job["metadata"]["name"]}}
    (container,) = job["spec"]["template"]["spec"]["containers"]
    check_options(container["command"])
