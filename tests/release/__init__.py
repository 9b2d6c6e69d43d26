"""A release: `python -m tests.release` builds, installs and runs it; the tests read what goes with it."""
