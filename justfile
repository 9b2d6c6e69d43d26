# `just` lists the recipes; each of them runs in the active environment (`pip install -e '.[test]'`).

_default:
    @just --list --unsorted

# The quick tests; arguments go to pytest: just test tests/engine -n 0
test *arguments:
    pytest {{ arguments }}

# The long tests
slow:
    pytest -m slow

# Style and formatting, without changing anything
lint:
    ruff check .
    ruff format --check .

# Types
types:
    mypy

# The pages that are printed by code
docs:
    python -m lastcli.cli.reference > docs/cli.md

# The quick tests against the lowest declared versions
lowest *arguments:
    benchmarks/lowest.sh {{ arguments }}

# What every change must pass, in a fresh environment
ci:
    .ci/run
