"""The compile cache: where it is, whom it trusts, and that it is never a reason to fail."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from lastcli.cli.compile_cache import VARIABLE, cache_folder, enable_compile_cache


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, "XDG_CACHE_HOME", "HOME", "USERPROFILE", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_it_is_made_for_the_user_alone_whatever_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    before = os.umask(0)
    try:
        folder = cache_folder()
    finally:
        os.umask(before)
    assert folder == tmp_path / ".cache" / "lastcli" / "compiled"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert cache_folder() == folder


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "lastcli" / "compiled"
    monkeypatch.setenv(VARIABLE, str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own" / "compiled"


@pytest.mark.parametrize("value", ["", "off", "OFF", "0", "none"])
def test_off(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(VARIABLE, value)
    assert cache_folder() is None
    assert list(tmp_path.iterdir()) == []


def test_no_home() -> None:
    assert cache_folder() is None


@pytest.mark.parametrize("named", ["~nobody-of-that-name/x", "a\0b", "/proc/nothing/here"])
def test_places_that_cannot_be(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {VARIABLE: named})
    assert cache_folder() is None


def test_a_file_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    assert cache_folder() is None


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777, 0o702])
def test_a_folder_others_can_reach_is_not_trusted(mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled").chmod(mode)
    assert cache_folder() is None


def test_a_folder_that_others_could_swap_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "shared"))
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    assert cache_folder() is None
    (tmp_path / "shared").chmod(0o1777)
    assert cache_folder() is not None


def test_a_symlink_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    (tmp_path / "compiled").symlink_to(tmp_path / "elsewhere")
    assert cache_folder() is None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    (tmp_path / "compiled").mkdir(mode=0o700)
    os.chown(tmp_path / "compiled", 12345, 12345)
    assert cache_folder() is None


PROGRAM = """{first}
from lastcli.cli.compile_cache import enable_compile_cache
folder = enable_compile_cache()
import sys
assert ("jax" in sys.modules) == bool("{first}")
import jax
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: (x @ x).sum() + {number})(jax.numpy.ones((3, 3))).block_until_ready()
print(len(list(folder.iterdir())))
"""


def test_programs_are_kept_and_a_lost_folder_is_no_error(tmp_path: Path) -> None:
    source = str(Path(__file__).parents[2] / "src")
    environment = os.environ | {VARIABLE: str(tmp_path), "PYTHONPATH": source}

    def run(program: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )

    assert int(run(PROGRAM.format(number=1, first="")).stdout) > 0
    for entry in (tmp_path / "compiled").iterdir():
        entry.unlink()
    assert int(run(PROGRAM.format(number=1, first="import jax")).stdout) > 0
    lost = PROGRAM.format(number=2, first="").replace("import jax\n", "import jax, shutil\nshutil.rmtree(folder)\n", 1)
    lost = lost.replace("print(len(list(folder.iterdir())))", "print('done')")
    done = run(lost.replace("shutil.rmtree(folder)", "shutil.rmtree(folder); folder.write_text('')"))
    assert done.stdout == "done\n"
    assert done.stderr == ""


def test_where_there_is_none_nothing_is_turned_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    monkeypatch.setenv(VARIABLE, "off")
    before, warned = jax.config.jax_compilation_cache_dir, list(warnings.filters)
    assert enable_compile_cache() is None
    assert (jax.config.jax_compilation_cache_dir, warnings.filters) == (before, warned)


def test_without_owners_a_folder_that_can_be_written_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled").chmod(0o777)
    assert cache_folder() is None
    monkeypatch.delattr(os, "geteuid")
    assert cache_folder() == tmp_path / "compiled"
