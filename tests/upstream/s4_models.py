"""Models of the S4 repository: layers of every version, and one model for every option around them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lastcli.families.base import Family
from lastcli.families.s4.dplr import S4DPLR
from lastcli.families.s4.dss import DSS
from lastcli.families.s4.family import S4
from tests.builders import s4 as spell
from tests.builders.dss import dss_layer
from tests.builders.named import Arrays
from tests.families.rebuilding import config_of
from tests.families.test_dss import plain_kernel
from tests.upstream.s4 import dense_kernel, diagonal_kernel, transformed
from tests.upstream.s4_sequence import Given, Shape, build

N, L = 2, 9


def v4(rng: np.random.Generator, H: int = 4, rule: str = "zoh", **options: Any) -> Given:
    k = spell.numbers(rng, H=H, N=3, **options)
    return Given(spell.v4(k), lambda length: diagonal_kernel(k, rule, length), options.get("both", False))


def v3(rng: np.random.Generator, H: int = 4, **options: Any) -> Given:
    k = spell.numbers(rng, H=H, N=3, **options)
    return Given(spell.v3(k), lambda length: diagonal_kernel(k, "bilinear", length), options.get("both", False))


def v2(rng: np.random.Generator, **options: Any) -> Given:
    k = spell.numbers(rng, N=3, **options)
    ones = np.ones_like(k.B)
    return Given(
        spell.v2_diagonal(k), lambda length: diagonal_kernel(k, "zoh", length, ones), options.get("both", False)
    )


def dplr(rng: np.random.Generator, **options: Any) -> Given:
    k = spell.numbers(rng, N=3, **options)
    stored = replace(k, C=transformed(k, 24))
    return Given(spell.v4(stored, length=24), lambda length: dense_kernel(k, length), options.get("both", False))


def v1(rng: np.random.Generator, **options: Any) -> Given:
    k = spell.numbers(rng, N=3, **options)
    Q = k.P.conj() * np.float32(1.1)
    stored = replace(k, C=transformed(k, 24, Q))
    return Given(spell.v1(stored, Q, 24), lambda length: dense_kernel(k, length, Q), False)


def v0(rng: np.random.Generator, **options: Any) -> Given:
    k = spell.numbers(rng, N=3, **options)
    Q = k.P.conj()
    return Given(spell.v0(replace(k, C=transformed(k, 24, Q)), Q, 24), lambda length: dense_kernel(k, length, Q), False)


def dss(rng: np.random.Generator, **options: Any) -> Given:
    arrays = dss_layer(rng, "exp", **options)
    return Given(arrays, lambda length: plain_kernel(arrays, "exp")[..., :length], options.get("both", False))


MADE = {
    "v4": (S4(), v4),
    "v3": (S4(), v3),
    "v2": (S4(), v2),
    "dplr": (S4DPLR(), dplr),
    "v1": (S4DPLR(), v1),
    "dss": (DSS(), dss),
    "v0": (S4DPLR(), v0),
}

OLD = Shape(version=1, mask_padding=False)
# name → (which layers, how they are made, the model around them, what the description has to say)
CASES: dict[str, tuple[str, dict[str, Any], Shape, dict[str, Any]]] = {
    "V4, batch norm before": ("v4", {"both": True}, Shape(norm="batch"), {}),
    "V4, layer norm after, heads": ("v4", {"heads": 2}, Shape(prenorm=False, heads=2, mode="last"), {}),
    "V4, tokens": ("v4", {"S": 2}, Shape(encoder="embedding", features=7, norm="batch"), {}),
    "V4, group norm": ("v4", {}, Shape(norm="group", mode="sequence"), {"norm": "group"}),
    "V4, instance norm": ("v4", {}, Shape(norm="instance"), {"norm": "instance", "prenorm": True}),
    "V4, no norm, no encoder": ("v4", {}, Shape(norm="none", encoder="none"), {}),
    "V4, nested layer norm, decay": ("v4", {}, Shape(norm="transposed", residual="D"), {}),
    "V4, affine residual": ("v4", {}, Shape(norm="layer", residual="A"), {}),
    "V4, no skip": ("v4", {}, Shape(residual="F"), {}),
    "V4, no output map": ("v4", {}, Shape(postact=None, activation="tanh"), {}),
    "V4, output map alone": ("v4", {}, Shape(postact="id"), {"postact": "none"}),
    "V4, gelu gate, weight norm": ("v4", {}, Shape(postact="glu-gelu", weight_norm=True), {"postact": "glu-gelu"}),
    "V4, gate inside": ("v4", {"heads": 2}, Shape(activation="glu"), {"activation": "glu"}),
    "V4, feed-forward": ("v4", {}, Shape(ff="gelu"), {}),
    "V4, gated feed-forward": ("v4", {}, Shape(ff="glu", norm="batch"), {}),
    "V4, pairs": ("v4", {"both": True}, Shape(decoder="retrieval", encoder="embedding", norm="batch"), {}),
    "V4, pairs, three maps": ("v4", {}, Shape(decoder="retrieval2", mode="last"), {}),
    "V4, dropout": ("v4", {}, Shape(dropout=0.4), {}),
    "V4, tied dropout": ("v4", {}, Shape(dropout=0.4, tie_dropout=True), {}),
    "V4, sum": ("v4", {}, Shape(mode="sum", l_output=3), {"task": "regression"}),
    "V4, first steps": ("v4", {}, Shape(mode="first", l_output=2), {"task": "regression"}),
    "V4, last steps": ("v4", {}, Shape(mode="last", l_output=2), {"task": "regression"}),
    "V0, layer norm": ("v0", {}, OLD, {}),
    "V0, batch norm after": ("v0", {}, replace(OLD, norm="batch", prenorm=False), {}),
    "V4, padding counts": ("v4", {"both": True}, Shape(use_lengths=False, mask_padding=True), {}),
    "V3, scalar norm": ("v3", {"both": True}, Shape(version=3, norm="scalar"), {}),
    "V3, gate and bottleneck": ("v3", {"H": 2}, Shape(version=3, gate=2, bottleneck=2), {}),
    "V2, nothing masked": ("v2", {"both": True}, replace(OLD, prenorm=False, norm="scalar", postact=None), {}),
    "low rank": ("dplr", {"both": True}, Shape(norm="batch"), {}),
    "DSS": (
        "dss",
        {"both": True},
        Shape(version=1, norm="scalar", prenorm=False, postact=None, mask_padding=False),
        {},
    ),
    "DSS, pairs": ("dss", {}, Shape(version=1, norm="batch", decoder="retrieval", mask_padding=False), {}),
}
CASES["low rank, one way"] = ("dplr", {}, Shape(norm="batch"), {})
CASES["V1, low rank"] = ("v1", {}, replace(OLD, norm="layer", mode="last"), {})
CASES["V3, plain map"] = ("v3", {}, Shape(version=3, postact=None), {})
PADDED = [
    "V4, batch norm before",
    "V4, layer norm after, heads",
    "V4, pairs",
    "V4, sum",
    "V4, last steps",
    "V4, padding counts",
    "V3, scalar norm",
    "V2, nothing masked",
    "low rank",
    "DSS",
    "DSS, pairs",
]


def made(name: str, seed: int = 0, **around: Any) -> tuple[Family, Any, Arrays, dict[str, Any]]:
    """The family, the PyTorch model, its tensors and their description."""
    kind, layer, shape, said = CASES[name]
    family, make = MADE[kind]
    rng = np.random.default_rng(seed)
    shape = replace(shape, **around)
    depth = 2 if name in PADDED or shape.residual == "D" else 1
    model, arrays = build([make(rng, **layer) for _ in range(depth)], shape, seed)
    keys = ("activation", "mode", "l_output", "use_lengths", "residual")
    said = {key: getattr(shape, key) for key in keys} | said
    said |= {"ff_activation": shape.ff} if shape.ff else {}
    return family, model, arrays, config_of(family, arrays, **said)


def batch(shape: Shape, padded: bool, seed: int = 1) -> tuple[np.ndarray, np.ndarray | None]:
    rng = np.random.default_rng(seed)
    lead = (N,) if shape.decoder == "sequence" else (N, 2)
    if shape.encoder == "embedding":
        x = rng.integers(0, shape.features, (*lead, L)).astype("i4")
    else:
        x = rng.normal(size=(*lead, L, shape.width if shape.encoder == "none" else shape.features)).astype("f4")
    return x, rng.integers(4, L + 1, lead) if padded else None
