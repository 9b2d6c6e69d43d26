"""How LinOSS layers are spelled: `A_diag`, `steps` (later `dt`), `B`, `C` and `D` under one path."""

from __future__ import annotations

from collections.abc import Mapping

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Tensors
from lastcli.families.parts.leaves import expect_shape, groups

__all__ = ["STATE_AXIS", "candidates", "check_shapes", "roles_of"]

# role → the state axis of its tensor
STATE_AXIS = {"A_diag": 0, "steps": 0, "B": 0, "C": 1}


def candidates(tensors: Tensors) -> dict[str, dict[str, str]]:
    """{prefix: {leaf: name}} of everything that looks like a LinOSS layer, complete or not."""
    found = groups(tensors)
    return {
        prefix: leaves
        for prefix, leaves in found.items()
        if "A_diag" in leaves or ({"steps", "B", "C"} <= leaves.keys() and "log_step" not in leaves)
    }


def roles_of(leaves: Mapping[str, str]) -> dict[str, str]:
    """role → tensor name; `dt` is a later spelling of `steps`."""
    roles = {"steps" if leaf == "dt" else leaf: name for leaf, name in leaves.items()}
    return {role: roles[role] for role in (*STATE_AXIS, "D") if role in roles}


def check_shapes(roles: Mapping[str, str], tensors: Tensors) -> int:
    """The state count.

    Raises:
        UnsupportedModelError: a tensor's shape contradicts that of A_diag or B.
    """
    shape = tensors[roles["A_diag"]].shape
    if len(shape) != 1 or shape[0] < 1:
        raise UnsupportedModelError(f"Tensor {roles['A_diag']} has shape {shape}; expected one axis, the states.")
    states, B, C = shape[0], tensors[roles["B"]], tensors[roles["C"]]
    expect_shape(tensors[roles["steps"]], (states,))
    for info, axis in ((B, 0), (C, 1)):
        pair = () if info.dtype.startswith("complex") else (2,)
        width = info.shape[1 - axis] if len(info.shape) > 1 else 0
        expect_shape(info, (*((states, width) if axis == 0 else (width, states)), *pair))
    if "D" in roles:
        width = C.shape[0] if C.shape[0] == B.shape[1] else -1
        expect_shape(tensors[roles["D"]], (width,))
    return states
