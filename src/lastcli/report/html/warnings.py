"""What a reader must know before the numbers: states without a norm, assumptions, whatever a verb had to say."""

from __future__ import annotations

from lastcli.report.html.markup import Markup, element
from lastcli.report.text import count, name_text
from lastcli.results import Result, UnstableStates

__all__ = ["warnings_section"]


def warnings_section(result: Result) -> Markup:
    """A list of sentences, or nothing."""
    said = [element("li", note) for note in getattr(result, "notes", ())]
    said += [element("li", _unstable(found)) for found in getattr(result, "unstable", ())]
    if not said:
        return Markup()
    return element("section", element("h2", "Notes and warnings"), element("ul", *said), class_="warnings")


def _unstable(found: UnstableStates) -> str:
    number = len(found.states)
    return (
        f"{name_text(found.layer)}: {count(number)} {'state' if number == 1 else 'states'} with |λ| ≥ 1, up to "
        f"{found.largest:.6g}; they have no finite norm."
    )
