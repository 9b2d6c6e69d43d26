"""What the README says can be run is run: every command, the sidecar, and the Python."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from lastcli import demo
from lastcli.cli import app
from lastcli.families import family_named
from lastcli.mappings import parse_mapping
from lastcli.model.description import parse_settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands():
    lines = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ last ")]
    return [shlex.split(line)[1:] for line in lines]


def test_every_command_of_the_readme_runs(last, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(commands()) >= 6
    for arguments in commands():
        code, out, err = last(*arguments)
        assert code == 0, (arguments, err)
        assert out


def test_the_python_of_the_readme_runs_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = {"x": np.load(demo.split("test"))["x"][:4].astype(np.float32) / 16}
    snippets = blocks("python")
    assert len(snippets) >= 2
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), scope)
    assert np.asarray(scope["log_probabilities"]).shape == (4, 10)


def test_the_sidecar_of_the_readme_is_a_description():
    model = parse_mapping(next(block for block in blocks("yaml") if block.startswith("family")), "README")
    options = {option.key for option in family_named(model.pop("family")).options}
    assert set(model) <= options


def test_the_table_of_commands_names_every_command():
    names = {command.name for command in app.registered_commands}
    assert names == set(re.findall(r"^\| `last (\w+)", README, flags=re.MULTILINE))


def test_the_exit_codes_are_those_of_the_program():
    from lastcli.errors import ExitCode

    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", README, flags=re.MULTILINE)}
    assert codes == {int(code) for code in ExitCode}


def test_every_flag_in_the_ci_example_exists(last):
    for line in re.findall(r"^- run: (last .*)$", README, flags=re.MULTILINE):
        words = shlex.split(line)
        _, out, _ = last(words[1], "--help")
        for word in words:
            if word.startswith("--"):
                assert word in out, (word, words[1])


@pytest.mark.parametrize("link", re.findall(r"\]\(((?:docs|recipes|benchmarks)[^)]*|[A-Z]+(?:\.md)?)\)", README))
def test_every_link_leads_somewhere(link):
    assert (ROOT / link).exists()


def test_settings_in_the_text_are_of_the_form_the_program_reads():
    assert parse_settings(["discretization=zoh"]) == {"discretization": "zoh"}
