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
    python -m benchmarks.choosing

# The site, into build/site (`pip install -e '.[docs]'`)
site:
    mkdocs build --strict

# What a release must pass: a wheel and an sdist, each installed and run in an empty environment
release *arguments:
    python -m tests.release {{ arguments }}

# The quick tests against the lowest declared versions
lowest *arguments:
    benchmarks/lowest.sh {{ arguments }}

# What every change must pass, in a fresh environment
ci:
    .ci/run
