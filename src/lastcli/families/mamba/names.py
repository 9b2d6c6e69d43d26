"""Names of mixers: those of mamba_ssm, of transformers, and of plain PyTorch copies.

A mixer is known by its `A_log` and what lies beside it, `x_proj` (Mamba 1) or `dt_bias` (Mamba 2)::

    backbone.layers.0.mixer.{A_log, D, in_proj.weight, conv1d.{weight, bias}, x_proj.weight, dt_proj.{weight, bias},
                             out_proj.weight}
    backbone.layers.0.mixer.{A_log, D, dt_bias, in_proj.weight, conv1d.{weight, bias}, norm.weight, out_proj.weight}

Hybrids call it `mamba` (Jamba, Bamba, Zamba) or have only some layers with one (Nemotron-H). In copies the recurrence
may be a module of its own (`ssm.A_log`, `ssm.x_proj.weight`) inside the block that projects.
"""

from __future__ import annotations

from collections.abc import Mapping

from lastcli.families.base import Tensors
from lastcli.families.parts.leaves import canonical, in_running_order

__all__ = ["MAMBA1", "MAMBA2", "MIXER_NORMS", "block_of", "missing", "mixers"]

# role → the names it goes by below the mixer; the first of a file counts
_SHARED = {
    "in_proj": ("in_proj.weight",),
    "in_bias": ("in_proj.bias",),
    "conv": ("conv1d.weight", "conv.weight"),
    "conv_bias": ("conv1d.bias", "conv.bias"),
    "D": ("D",),
    "out_proj": ("out_proj.weight",),
    "out_bias": ("out_proj.bias",),
}
# Norms over step, B and C, in the order of Jamba's names.
MIXER_NORMS = {
    "step_norm": ("dt_layernorm.weight",),
    "B_norm": ("b_layernorm.weight", "B_layernorm.weight"),
    "C_norm": ("c_layernorm.weight", "C_layernorm.weight"),
}
_MAMBA1 = {
    **_SHARED,
    # Zamba's first version stacks those of its heads
    "x_proj": ("x_proj.weight", "x_proj_weight"),
    "dt_proj": ("dt_proj.weight", "dt_proj_weight"),
    "dt_bias": ("dt_proj.bias", "dt_proj_bias"),
    **MIXER_NORMS,
}
_MAMBA2 = {**_SHARED, "dt_bias": ("dt_bias",), "norm": ("norm.weight",)}

MAMBA1 = ("in_proj", "conv", "D", "out_proj", "x_proj", "dt_proj", "dt_bias")
"""Roles that no mixer of Mamba 1 is without."""
MAMBA2 = ("in_proj", "conv", "D", "out_proj", "dt_bias")
"""Roles that no mixer of Mamba 2 is without."""


def mixers(tensors: Tensors, version: int) -> dict[str, dict[str, str]]:
    """{path with its last separator: {role: tensor name}} of the mixers of Mamba 1 or 2, complete or not."""
    found: dict[str, dict[str, str]] = {}
    for name in in_running_order(tensors):
        parts = canonical(name).split("/")
        if parts[-1] != "A_log" or "opt_state" in parts or "optimizer" in parts:
            continue
        base = name[: -len("A_log")]
        if version != {3: 1, 2: 1, 1: 2}.get(len(tensors[name].shape)):
            continue
        roles = {"A_log": name}
        for role, spellings in (_MAMBA1 if version == 1 else _MAMBA2).items():
            place = _place(base, spellings, tensors)
            if place is not None:
                roles[role] = place
        if ("x_proj" if version == 1 else "in_proj") in roles:
            found[base] = roles
    return found


def _place(base: str, spellings: tuple[str, ...], tensors: Tensors) -> str | None:
    """Where a role is: below the mixer, or below the block around a recurrence that is a module of its own."""
    sign = base[-1:] or "."
    for prefix in (base, block_of(base)):
        for spelling in spellings:
            name = prefix + spelling.replace(".", sign)
            # the norm of the block is not the mixer's
            if name in tensors and not (prefix != base and spelling == "norm.weight"):
                return name
    return None


def block_of(base: str) -> str:
    """The path around a module: "layers.0.mixer." → "layers.0."."""
    sign = base[-1:]
    return base[: base[:-1].rfind(sign) + 1] if sign else ""


def missing(base: str, roles: Mapping[str, str], version: int) -> list[str]:
    """What a mixer lacks, as names below it."""
    spelled = _MAMBA1 if version == 1 else _MAMBA2
    return [spelled[role][0] for role in (MAMBA1 if version == 1 else MAMBA2) if role not in roles]
