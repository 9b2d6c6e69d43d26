"""What there is to say about a pruned file beside its numbers: how it is loaded, what the method and refit do."""

from __future__ import annotations

from lastcli.families.pages import loading_section
from lastcli.model.checkpoint import Checkpoint
from lastcli.plan import METHODS, REFITS
from lastcli.results import PruneResult

__all__ = ["about_reduction", "loading_of"]


def loading_of(checkpoint: Checkpoint) -> str | None:
    """How the code that the model was trained with loads a compact file, as Markdown; None where nothing is known."""
    return loading_section(checkpoint.family.page)


def about_reduction(result: PruneResult) -> tuple[str, ...]:
    """A sentence each on the method and the refit; nothing on a method of one's own."""
    named = (("Method", METHODS.get(result.method)), ("Refit", REFITS.get(result.refit)))
    return tuple(f"{kind} {one.name}: {one.help}. {one.source}." for kind, one in named if one is not None)
