"""Registers the selective systems as JAX pytrees; apart from `system`, so that `last inspect` needs no JAX."""

from __future__ import annotations

import dataclasses

import jax

from lastcli.engine.selective.system import S6HeadsSystem, S6System, SSDSystem

__all__ = ["S6HeadsSystem", "S6System", "SSDSystem"]

_META = {"norm_eps", "norm_groups", "norm_first", "step_limits"}

for _form in (S6System, S6HeadsSystem, SSDSystem):
    _names = [field.name for field in dataclasses.fields(_form)]
    jax.tree_util.register_dataclass(
        _form,
        data_fields=[name for name in _names if name not in _META],
        meta_fields=[name for name in _names if name in _META],
    )
