"""Fixtures shared by the tests of the verbs: a tiny S5 on disk, data for it, and the command line in this process."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from lastcli import containers
from lastcli.cli import main
from lastcli.containers.base import TensorSource
from tests.builders.s5 import s5_checkpoint, s5_config
from tests.repeats import mark

# Read when JAX is imported, here and in every process that a test starts: no dtype is widened behind our back, and no
# axis is added.
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Programs of tiny models take far longer to compile than to run: a quarter of that is optimisation (0 turns it on).
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Nor is every operation of every program told which lines it came from.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

# A shell's background jobs ignore Ctrl-C, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

MODEL = {"activation": "half_glu1"}


def pytest_configure(config: pytest.Config) -> None:
    """Compiled programs, however small, are shared by all tests and kept for the next run (`--cache-clear` ends that).

    Most of the time of the suite is compilation, often of a program that another test has compiled. Processes that a
    test starts, and the workers of pytest-xdist, find the folder in their environment.
    """
    if not hasattr(config, "workerinput") and hasattr(config, "cache"):  # there is none with -p no:cacheprovider
        settings = {
            "jax_compilation_cache_dir": str(config.cache.mkdir("compiled")),
            "jax_persistent_cache_min_compile_time_secs": 0,
            "jax_persistent_cache_min_entry_size_bytes": -1,
        }
        os.environ.update({name.upper(): str(value) for name, value in settings.items()})
        if "jax" in sys.modules:  # the conftest of a folder that was named has imported it
            import jax

            for name, value in settings.items():
                jax.config.update(name, value)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mark(items, whole=config.args_source is config.ArgsSource.TESTPATHS)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """No test reads or writes the user's compile cache."""
    os.environ.setdefault("LAST_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True, scope="session")
def _few_looks_at_memory():
    """Looking at the heap of a process that ran many tests takes long; tests/evaluation/test_memory.py does it."""
    from lastcli.evaluation import memory

    given = pytest.MonkeyPatch()
    for name, value in (("LOOKS", 2), ("RUNS", 1), ("SECONDS", 0.0), ("settle", lambda: None)):
        given.setattr(memory, name, value)
    yield
    given.undo()


@pytest.fixture
def short_searches(monkeypatch):
    """Searches of a few steps, where a test asks what becomes of their result and not how good it is."""
    from lastcli.reduction import refits

    monkeypatch.setattr(refits, "POLE_STEPS", 40)
    monkeypatch.setattr(refits, "MATCH_STEPS", 60)


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """A tiny S5 in the current folder, described in its metadata; stable, three features, two classes."""
    monkeypatch.chdir(tmp_path)
    return write_s5(tmp_path / "tiny.safetensors")


@pytest.fixture
def data(tmp_path) -> Path:
    """A held-out split for `tiny`."""
    rng = np.random.default_rng(5)
    path = tmp_path / "data.npz"
    np.savez(path, x=rng.normal(size=(40, 9, 3)).astype(np.float32), y=rng.integers(0, 2, 40))
    return path


def write_s5(path: Path, *, seed: int = 3, describe: bool = True, change=None, **options) -> Path:
    """A tiny S5 checkpoint at `path`; `change(arrays)` may spoil it first."""
    model = {**MODEL, **{k: v for k, v in options.items() if k not in ("sizes", "width", "features", "outputs")}}
    arrays = s5_checkpoint(np.random.default_rng(seed), **{**MODEL, **options})
    for name in arrays:
        if name.endswith("Lambda_re"):
            arrays[name] = -np.abs(arrays[name])
    if change is not None:
        change(arrays)
    config = {"family": "s5", **s5_config(**model)}
    metadata = {"last.description": json.dumps(config)} if describe else {}
    containers.write(path, [TensorSource.of(name, array) for name, array in arrays.items()], metadata=metadata)
    return path


@pytest.fixture
def last(capsys):
    """Run the command line here: `last("prune", ...)` → (exit code, stdout, stderr)."""

    def run(*arguments) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        code = ended.value.code
        return (0 if code is None else int(code)), out, err

    return run
