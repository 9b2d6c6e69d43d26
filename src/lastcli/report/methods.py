"""`last methods`: what the names of methods and refits mean."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["show_methods"]


def show_methods(methods: Mapping[str, str], refits: Mapping[str, str]) -> None:
    """Print every method and refit with one line about it.

    Args:
        methods: name → help.
        refits: name → help.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)

    def show(title: str, entries: Mapping[str, str]) -> None:
        table = Table(box=None, show_header=False, title=title, title_justify="left", padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column()
        for name, text in entries.items():
            table.add_row(name, text)
        console.print(table)

    show("Methods (--method, --methods)", methods)
    console.print()
    show("Refits (--refit, --refits)", refits)
