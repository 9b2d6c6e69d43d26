"""One or more tiny checkpoints of every family in the registry, and the options that change how its layers are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.builders.annotated import annotated_model
from tests.builders.attenuate import attenuate_layer, denoiser
from tests.builders.complex_s4d import complex_s4d_layer
from tests.builders.dss import dss_layer
from tests.builders.event_ssm import event_checkpoint
from tests.builders.linoss import linoss_model
from tests.builders.lru import SPELLINGS
from tests.builders.mamba import language_model
from tests.builders.mega import as_transformers, in_a_model, mega_layer
from tests.builders.named import Arrays
from tests.builders.s4 import numbers, prefixed, v0, v1, v3, v4
from tests.builders.s4d import s4d_layer, s4d_model
from tests.builders.s5 import s5_checkpoint
from tests.builders.s5_pytorch import s5_torch_block, s5_torch_layer


@dataclass(frozen=True)
class Case:
    """A checkpoint of one family.

    Attributes:
        name: what is special about it.
        build: from a generator to named arrays.
        changes: what the description says beside the defaults and what the tensors prove.
        fixed: whether its format holds only the poles that are there.
        real: whether its format holds the real part of C only.
    """

    name: str
    build: Callable[[np.random.Generator], Arrays]
    changes: dict[str, Any] = field(default_factory=dict)
    fixed: bool = False
    real: bool = False


def _s5(**model: Any) -> Callable[[np.random.Generator], Arrays]:
    return lambda rng: s5_checkpoint(rng, **model)


def _with_initial_state(rng: np.random.Generator) -> Arrays:
    return SPELLINGS["torch"](rng) | {"x0_param": rng.normal(size=(1, 6)).astype("c8")}


def _s4(spell: Callable[..., Arrays], spelling: dict[str, Any] | None = None, **of: Any) -> Any:
    return lambda rng: prefixed(spell(numbers(rng, **of), **(spelling or {})), "blocks.0.layer.")


def _real_s4(rng: np.random.Generator) -> Arrays:
    """V4's `is_real`: no imaginary part and no axis of pairs."""
    arrays = _s4(v4)(rng)
    del arrays["blocks.0.layer.kernel.A_imag"]
    for role in ("B", "C"):
        arrays[f"blocks.0.layer.kernel.{role}"] = np.ascontiguousarray(arrays[f"blocks.0.layer.kernel.{role}"][..., 0])
    return arrays


def _v1(rng: np.random.Generator) -> Arrays:
    k = numbers(rng)
    return prefixed(v1(k, k.P.conj(), 8), "blocks.0.layer.")


SELECTIVE: dict[str, list[Case]] = {
    "mamba": [Case("language model", language_model)],
    "mamba2": [Case("language model", lambda rng: language_model(rng, 2), {"groups": 2})],
}
"""Families of layers that are not time-invariant: they have no poles and no norms to ask about."""


def _v0(rng: np.random.Generator) -> Arrays:
    k = numbers(rng)
    return prefixed(v0(k, k.P.conj(), 8), "blocks.0.layer.")


CASES: dict[str, list[Case]] = {
    "event_ssm": [Case(rule, event_checkpoint, {"discretization": rule}) for rule in ("async", "dirac", "zoh")],
    "s5": [
        Case("zoh", _s5()),
        Case("bilinear", _s5(), {"discretization": "bilinear"}),
        Case("clipped", _s5(clip_eigs=True), {"clip_eigs": True}),
        Case("full spectrum", _s5(conj_sym=False), {"conj_sym": False}),
        Case("both ways", _s5(bidirectional=True)),
        Case("joint C", _s5(bidirectional=True, joint=True)),
    ],
    "s5_pytorch": [
        Case("layer", s5_torch_layer),
        Case("both ways", lambda rng: s5_torch_layer(rng, bidirectional=True)),
        Case("block", s5_torch_block),
    ],
    "lru": [
        *(Case(spelling, build) for spelling, build in SPELLINGS.items()),
        Case("initial state", _with_initial_state, fixed=True),
    ],
    "linoss": [Case(rule, linoss_model, {"discretization": rule}, fixed=True) for rule in ("IM", "IMEX")],
    "mega": [
        Case("one way", lambda rng: in_a_model(mega_layer(rng)), real=True),
        Case("both ways", lambda rng: in_a_model(mega_layer(rng, bidirectional=True)), real=True),
        Case("transformers", lambda rng: as_transformers(mega_layer(rng)), {"gain": "alpha"}, real=True),
    ],
    "s4d": [
        Case("model", s4d_model),
        Case("flat", lambda rng: s4d_layer(rng, flat=True)),
        Case("native", lambda rng: s4d_layer(rng, native=True)),
    ],
    "s4": [
        Case("V4", _s4(v4)),
        Case("V3", _s4(v3)),
        Case("V2", _s4(v3, {"poles": "log"})),
        Case("dss rule", _s4(v4), {"discretization": "dss"}),
        Case("tied", _s4(v4, S=2)),
        Case("steps of states", _s4(v4, dt_tie=False)),
        Case("heads", _s4(v4, heads=2)),
        Case("both ways", _s4(v4, both=True), fixed=True),
        Case("bandlimit", _s4(v4), {"bandlimit": 0.9}),
        Case("real", _real_s4, real=True),
        *(Case(kind, _s4(v4, {"real_transform": kind}), {"real_transform": kind}) for kind in ("relu", "softplus")),
    ],
    "s4_dplr": [
        Case("V4", _s4(v4, {"length": 8}), {"form": "s4d"}),
        Case("V3", _s4(v3, {"length": 8}), {"form": "s4d"}),
        Case("V1", _v1, {"form": "s4d"}),
        Case("V0", _v0, {"form": "s4d"}),
        Case("V0 in the repository's form", _v0, {"form": "s4"}),
        Case("kept in the repository's form", _s4(v4, {"length": 8}), {"form": "s4"}),
        Case("both ways", _s4(v4, {"length": 8}, both=True), {"form": "s4"}, fixed=True),
    ],
    "dss": [
        *(
            Case(version, lambda rng, version=version: dss_layer(rng, version), fixed=True)
            for version in ("softmax", "exp", "exp-im")
        ),
        Case("both ways", lambda rng: dss_layer(rng, both=True), fixed=True),
        Case("one step", lambda rng: dss_layer(rng, two_steps=False), fixed=True),
    ],
    "annotated_s4d": [
        Case("published", lambda rng: annotated_model(rng, "s4d")),
        Case("with B", lambda rng: annotated_model(rng, "s4d"), {"use_b": True}),
    ],
    "annotated_dss": [
        Case("limit", lambda rng: annotated_model(rng, "dss")),
        Case("length", lambda rng: annotated_model(rng, "dss"), {"kernel_length": 16}),
    ],
    "complex_s4d": [
        Case("pairs", lambda rng: complex_s4d_layer(rng, pairs=True)),
        Case("Re", complex_s4d_layer),
        Case("2·Re", complex_s4d_layer, {"conj_sym": True}),
        Case("bilinear", complex_s4d_layer, {"discretization": "bilinear"}),
        Case("B and pairs", lambda rng: complex_s4d_layer(rng, B=True, pairs=True)),
        Case("tied", lambda rng: complex_s4d_layer(rng, tied=True), fixed=True),
        Case("tied B", lambda rng: complex_s4d_layer(rng, tied=True, B=True), fixed=True),
    ],
    "attenuate": [
        Case("layer", attenuate_layer, fixed=True, real=True),
        Case("denoiser", denoiser, fixed=True, real=True),
    ],
    "annotated_s4": [Case("published", lambda rng: annotated_model(rng, "s4"), {"kernel_length": 16})],
}
