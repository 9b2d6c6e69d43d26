#!/usr/bin/env bash
# The quick tests against the lowest versions that pyproject.toml declares (torch apart): benchmarks/lowest.sh [TEST...]
# Prints the versions that ran. A failure means that a lower bound promises too much: raise it.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
# shellcheck source=/dev/null
. "$work/venv/bin/activate"
export LAST_CACHE_DIR="$work/cache"
pip install --quiet --disable-pip-version-check uv
python - > "$work/declared.txt" <<'PYTHON'
import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
for requirement in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
    if re.match(r"[\w-]+", requirement)[0] not in ("torch", "ruff", "mypy", "types-PyYAML"):
        print(requirement)
PYTHON
uv pip compile --quiet --resolution lowest-direct "$work/declared.txt" --output-file "$work/lowest.txt"
uv pip install --quiet --requirement "$work/lowest.txt"
uv pip install --quiet --no-deps .
uv pip freeze
[ $# -gt 0 ] || set -- tests/cli tests/plan tests/containers
# old libraries warn about each other; that is no fault of a lower bound
pytest -W default "$@"
