"""A suggested description as the YAML file that it is meant to become."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcli.report.text import name_text, safe_text

if TYPE_CHECKING:
    from lastcli.results import SuggestResult

__all__ = ["as_yaml"]

_SHOWN = 24

_SKELETON = """\
# family: NAME
# layers: "layers.*.seq"
# names: {C: C_real_imag}   # the family's part: the file's tensor, or a function of tensors
# axes: {C: [1, 0, 2]}      # the family's axes by their number in the file's tensor
"""


def as_yaml(result: SuggestResult) -> str:
    """The description, with what it is made of and what to check as comments."""
    import yaml

    lines = [f"# A first description of {safe_text(result.checkpoint)}; use it with --model-config FILE."]
    if result.tensors:
        lines.append("# Made from names and shapes of these tensors, no numbers: check it against the model's code.")
    for tensor in result.tensors[:_SHOWN]:
        lines.append(f"#   {name_text(tensor.name)}  {tensor.dtype} {tuple(tensor.shape)}")
    if len(result.tensors) > _SHOWN:
        lines.append(f"#   and {len(result.tensors) - _SHOWN} more")
    if result.check:
        lines.append(f"# Check: {safe_text(result.check)}.")
    lines += [f"# {safe_text(note)}" for note in result.notes]
    text = "\n".join(lines) + "\n"
    if result.description is None:
        return text + _SKELETON
    return text + yaml.safe_dump(dict(result.description), sort_keys=False, default_flow_style=None, width=120)
