"""What must start fast must not import what is slow."""

import importlib
import subprocess
import sys

import pytest

from lastcli.cli import main
from tests.conftest import write_s5

HEAVY = ("jax", "flax", "orbax", "torch")


def imported(*arguments):
    code = (
        "import sys\nfrom lastcli.cli import main\n"
        f"try:\n    main({list(map(str, arguments))!r})\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["sweep", "--help"], ["methods"]])
def test_help_imports_nothing_heavy(arguments):
    assert imported(*arguments) == "[]"


@pytest.mark.parametrize("suffix", [".safetensors", ".msgpack", ""])
def test_inspect_imports_nothing_heavy(tmp_path, suffix):
    path = write_s5(tmp_path / f"model{suffix}", describe=suffix == ".safetensors")
    # an orbax folder's tensors can only be decoded by orbax; names, shapes and dtypes are read without it
    expected = "[]" if suffix else "['jax', 'flax', 'orbax']"
    found = imported("inspect", path)
    assert found == "[]" or (not suffix and found <= expected)


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, lastcli\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("method", ["last", "aire", "lamp", "random"])
def test_scoring_single_states_imports_nothing_heavy(tmp_path, method):
    path = write_s5(tmp_path / "model.safetensors")
    assert imported("score", path, "--method", method) == "[]"


def test_importing_the_module_of_the_command_runs_nothing():
    assert importlib.import_module("lastcli.__main__").main is main
