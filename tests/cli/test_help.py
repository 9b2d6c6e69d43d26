"""What people see first: help, completion, the environment, and the other `last`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from lastcli.cli.commands import app
from lastcli.cli.completion import completer
from lastcli.cli.help import EXAMPLES, PANELS, Command, Group
from lastcli.cli.reference import command_flags, declarations
from lastcli.families import FAMILIES
from lastcli.plan import METHODS, REFITS


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def test_the_first_screen_says_the_three_commands_and_cuts_nothing(last, narrow):
    code, out, _ = last("--help")
    assert code == 0
    begin = [line.strip() for line in out.splitlines() if line.startswith("  last ")]
    assert [line.split()[1] for line in begin] == ["inspect", "sweep", "prune"]
    assert "…" not in out
    assert "..." not in out.split("\n", 1)[1]
    said = " ".join(out.split())
    for command in app.registered_commands:
        assert " ".join(str(command.help or command.callback.__doc__).split()) in said
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("command", [name for name in command_flags() if name not in ("methods", "env")])
def test_options_stand_in_panels_and_examples_at_the_end(last, narrow, command):
    _, out, _ = last(*command.split(), "--help")
    titles = re.findall(r"^(\w[\w ]*):$", out, flags=re.MULTILINE)
    assert set(titles) <= {"Arguments", *PANELS, "Help", "Examples"}
    assert titles[-1] == "Examples"
    assert "…" not in re.sub(r"(M,M|R,R|X,X|x=NAME),…", "", out)
    help_part = out[out.index("Help:") : out.index("Examples:")]
    assert re.findall(r"--[\w-]+", help_part) == ["--help"], "an option without a panel"


def test_every_example_is_a_command_with_options_that_there_are():
    flags = command_flags()
    for name, examples in EXAMPLES.items():
        spellings = {spelling for flag in flags[name] for spelling in declarations(flag)}
        for example in examples:
            assert example.startswith(f"last {name} ")
            assert set(re.findall(r"--[\w-]+", example)) <= spellings


@pytest.mark.parametrize("typed", [("-n", "5"), ("-5",), ("reboot",), ("--since", "today"), ("-x", "shutdown")])
def test_who_meant_the_other_last_is_told_in_one_line(last, typed):
    code, out, err = last(*typed)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert f"/usr/bin/last {' '.join(typed)}" in err


def test_what_is_nobodys_is_a_usage_error_as_before(last):
    code, _, err = last("sweeep")
    assert code == 2
    assert "util-linux" not in err
    assert last("-h")[0] == last("--version")[0] == 0


def test_completion_knows_the_names_and_the_next_of_a_list():
    assert completer("method")("a") == [name for name in METHODS if name.startswith("a")]
    assert completer("refit")("") == list(REFITS)
    assert completer("layout")("u") == ["uniform"]
    assert completer("to_family")("mam") == [name for name in FAMILIES if name.startswith("mam")]
    assert completer("methods")("last,a") == ["last,aire"]
    assert "last,last" not in completer("methods")("last,")
    assert completer("data") is None


def test_a_shell_gets_them():
    words = {"_LAST_COMPLETE": "complete_bash", "COMP_WORDS": "last sweep --layout p", "COMP_CWORD": "3"}
    code = "from lastcli.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | words, capture_output=True, text=True)
    assert done.stdout.split() == ["padded", "proportional"]


def test_the_environment_names_versions_and_devices(last):
    code, out, _ = last("env")
    assert code == 0
    assert re.search(r"^jax +\d", out, flags=re.MULTILINE)
    assert re.search(r"^devices +cpu", out, flags=re.MULTILINE)
    document = json.loads(last("env", "--json")[1])
    assert document["schema"] == "last.env/1"
    assert document["python"] in out


def test_what_is_hidden_is_not_shown():
    small = typer.Typer(cls=Group, rich_markup_mode=None)

    @small.command(cls=Command)
    def shown(ratio: float = 0.5, secret: Annotated[int, typer.Option(hidden=True)] = 1):
        """What is there."""

    @small.command(hidden=True)
    def hidden():
        """What is not."""

    first = CliRunner().invoke(small, ["--help"]).output
    assert "What is there." in first
    assert "hidden" not in first
    options = CliRunner().invoke(small, ["shown", "--help"]).output
    assert "How much:" in options
    assert "--secret" not in options
