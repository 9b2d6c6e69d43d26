"""The fuzzer that looks for new branches: `python -m tests.fuzz.guided --seconds 60`, where atheris is installed.

Files of one piece only: libFuzzer changes their bytes and keeps what reaches a branch of `lastcli.containers`,
`lastcli.evaluation`, `lastcli.plan` or `lastcli.mappings` that nothing before it reached. For a torch archive the
bytes are those of the pickle inside, since a checksum lies over the rest. What counts as a finding is said in
`tests.fuzz.run`; memory and time are libFuzzer's own limits.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["GUIDED", "main"]

GUIDED = (
    "safetensors",
    "safetensors of others",
    "msgpack",
    "msgpack of others",
    "torch",
    "torch of others",
    "torch of others, legacy",
    "pickle",
    "pickle, protocol 2",
    "joblib",
    "npz",
    "recipe",
    "sidecar",
)
_ARCHIVES = ("torch", "torch of others")
_SECONDS, _MEGABYTES, _LONGEST = 10, 1536, 1 << 16


def main(arguments: list[str] | None = None) -> int:
    """Each subject in a process of its own, which libFuzzer ends; prints runs, branches and findings as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each subject")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=GUIDED, help="one subject")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.child:
        _fuzz(chosen.only, Path(chosen.child), chosen.seconds, chosen.seed)
    report: dict[str, object] = {"seed": chosen.seed, "seconds": chosen.seconds}
    failed = False
    for name in [chosen.only] if chosen.only else GUIDED:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tests.fuzz.guided", "--only", name, "--child", folder]
            command += ["--seconds", str(chosen.seconds), "--seed", str(chosen.seed)]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
            runs = re.search(r"Done (\d+) runs", done.stderr)
            branches = [int(found) for found in re.findall(r" (?:cov|ft): (\d+)", done.stderr)]
            findings = Path(folder, "findings").read_text().splitlines() if Path(folder, "findings").exists() else []
            if done.returncode or not runs:
                findings.append(f"{name}: ended with {done.returncode}: {done.stderr[-400:]}")
            report[name] = {
                "runs": int(runs[1]) if runs else 0,
                "first": branches[0] if branches else 0,
                "reached": max(branches, default=0),
                "findings": findings,
            }
            failed = failed or bool(findings)
            print(f"{name}: {report[name]}", file=sys.stderr, flush=True)
    print(json.dumps(report, indent=2))
    return int(failed)


def _fuzz(name: str, folder: Path, seconds: int, seed: int) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    # libFuzzer sees the branches of what is imported here for the first time, and of nothing else.
    packages = ["lastcli.containers", "lastcli.evaluation", "lastcli.plan", "lastcli.mappings", "lastcli.model"]
    with atheris.instrument_imports(include=packages):
        from lastcli.errors import LastError
        from tests.fuzz.run import ALLOWED
        from tests.fuzz.subjects import SUBJECTS, original_of

    subject = SUBJECTS[name]
    (folder / "whole").mkdir()
    (folder / "seeds").mkdir()
    whole = subject.make(folder / "whole")
    original = original_of(whole)
    part, put = _part(name, whole)
    (folder / "seeds" / "whole").write_bytes(part)
    seen: set[str] = set()

    def one(data: bytes) -> None:
        put(data)
        try:
            subject.check(whole, original)
        except LastError as error:
            if isinstance(error, ALLOWED) and "\n" not in str(error):
                return
            _note(error)
        except Exception as error:
            _note(error)

    def _note(error: Exception) -> None:
        line = f"{name}: {type(error).__name__}: {str(error)[:200]}".replace("\n", " ")
        kind = re.sub(r"[\d'\"].*", "", line)
        if kind not in seen:
            seen.add(kind)
            with (folder / "findings").open("a") as file:
                file.write(line + "\n")

    options = [f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={_LONGEST}", f"-timeout={_SECONDS}"]
    options += [f"-rss_limit_mb={_MEGABYTES}", f"-artifact_prefix={folder}/", "-print_final_stats=1", "-len_control=0"]
    atheris.Setup([name, *options, str(folder / "seeds")], one, enable_python_coverage=True)
    atheris.Fuzz()


def _part(name: str, whole: Path) -> tuple[bytes, Callable[[bytes], object]]:
    """The bytes that are changed, and what puts them back into the file."""
    if name == "sidecar":
        sidecar = whole.with_suffix(".json")
        return sidecar.read_bytes(), sidecar.write_bytes
    data = whole.read_bytes()
    if name not in _ARCHIVES:
        return data, whole.write_bytes
    from tests.hostile.torch import repacked

    inner: list[bytes] = []

    def keep(member: str, content: bytes) -> bytes:
        if member.endswith("data.pkl"):
            inner.append(content)
        return content

    repacked(data, keep)
    return inner[0], lambda changed: whole.write_bytes(
        repacked(data, lambda member, content: changed if member.endswith("data.pkl") else content)
    )


if __name__ == "__main__":
    raise SystemExit(main())
