"""Build the wheel and the sdist, install each in an empty environment, run the commands: `python -m tests.release`.

For every Python given with `--python` (default: each python3.N on the path that the project accepts) both are installed
into a fresh virtual environment without extras, in a folder far from the sources, and made to do the whole job on the
bundled model. `--resolve 3.13 3.14` asks, for Pythons that are not here, whether every dependency has a wheel.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.release.project import LIMIT, ROOT, accepts, version

SMOKE = (
    "--version",
    "--help",
    "inspect",
    "score --method obs",
    "sweep --ratios 0.3",
    "prune --method obs --ratio 0.5 --out small.safetensors",
    "verify bundled small.safetensors",
    "eval small.safetensors --data bundled:test",
    "convert small.safetensors small.msgpack",
)
_IMPORTED = "import lastcli, pathlib; print(lastcli.__version__, pathlib.Path(lastcli.__file__).resolve())"
_QUIET = ("--quiet", "--disable-pip-version-check")


def pythons() -> list[str]:
    """Every python3.N on the path that the project accepts, the lowest first."""
    found = [shutil.which(f"python3.{minor}") for minor in range(30) if accepts((3, minor))]
    return [path for path in found if path] or [sys.executable]


def environment(folder: Path) -> dict[str, str]:
    """As of a user who has just logged in: no sources on the path, a cache of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL", "LAST_"))}
    return {**kept, "LAST_CACHE_DIR": str(folder / "cache")}


def run(command: Sequence[str | Path], folder: Path) -> str:
    """What a command prints; one that fails ends the script with what it said."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, env=environment(folder), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def virtual(python: str, folder: Path) -> Path:
    """The Python of a new, empty environment."""
    run([python, "-m", "venv", folder], folder.parent)
    return folder / "bin" / "python"


def build(folder: Path) -> list[Path]:
    """The sdist, and the wheel made from it, so that the sdist is known to hold all that a wheel needs."""
    python = virtual(sys.executable, folder / "builder")
    run([python, "-m", "pip", "install", *_QUIET, "build"], folder)
    run([python, "-m", "build", "--outdir", folder / "dist", ROOT], folder)
    return sorted((folder / "dist").iterdir())


def smoke(python: str, package: Path, folder: Path) -> None:
    """Install a package where nothing is, and do the whole job with it."""
    folder.mkdir()
    own = virtual(python, folder / "venv")
    run([own, "-m", "pip", "install", *_QUIET, package], folder)
    run([own, "-m", "pip", "check"], folder)
    found, where = run([own, "-c", _IMPORTED], folder).split(maxsplit=1)
    if found != version() or not Path(where.strip()).is_relative_to((folder / "venv").resolve()):
        raise SystemExit(f"{package.name}: version {found} was imported from {where}")
    for arguments in SMOKE:
        for program in ("last", "lastcli") if arguments == "--version" else ("last",):
            out = run([own.parent / program, *arguments.split()], folder)
            if arguments == "--version" and version() not in out:
                raise SystemExit(f"{program} --version prints {out!r}")


def resolve(python_version: str, wheel: Path, folder: Path) -> None:
    """Every dependency of the wheel has a wheel for a Python that is not here."""
    command = [sys.executable, "-m", "pip", "install", *_QUIET, "--dry-run", "--python-version", python_version]
    run([*command, "--only-binary=:all:", "--target", folder / "nothing", wheel], folder)


def main(arguments: list[str] | None = None) -> int:
    """Build, measure, install, run; one line each."""
    parser = argparse.ArgumentParser(prog="python -m tests.release", description=__doc__)
    parser.add_argument("--python", nargs="+", default=None, help="interpreters to install into")
    parser.add_argument("--resolve", nargs="*", default=[], metavar="3.N", help="Pythons that are not here")
    parser.add_argument("--keep", type=Path, help="folder to copy the two files to")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        packages = build(folder)
        wheel = next(path for path in packages if path.suffix == ".whl")
        for path in packages:
            print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB", flush=True)
        if wheel.stat().st_size > LIMIT:
            raise SystemExit(f"{wheel.name} is larger than {LIMIT / 1e6:g} MB.")
        for i, python in enumerate(given.python or pythons()):
            named = run([python, "--version"], folder).strip()
            for package in packages:
                smoke(python, package, folder / f"{i}-{package.suffix[1:]}")
                print(f"{named}, {package.name}: installed, {len(SMOKE)} commands ran", flush=True)
        for python_version in given.resolve:
            resolve(python_version, wheel, folder)
            print(f"Python {python_version}: every dependency has a wheel", flush=True)
        if given.keep:
            given.keep.mkdir(parents=True, exist_ok=True)
            for path in packages:
                shutil.copy2(path, given.keep)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
