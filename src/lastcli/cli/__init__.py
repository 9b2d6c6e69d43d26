"""The command `last`: flags in, one verb, a report out. `main` is the entry point."""

from lastcli.cli.commands import app, main

__all__ = ["app", "main"]
