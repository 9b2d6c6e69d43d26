"""Tiny checkpoints of the annotated S4, as flax stores them: one channel's parameters stacked over axis 1."""

from __future__ import annotations

import numpy as np

from tests.builders.named import Arrays

KINDS = ("s4d", "dss", "s4")


def annotated_layer(rng: np.random.Generator, kind: str, N: int = 5, H: int = 4) -> Arrays:
    real, imag = -rng.uniform(0.2, 0.9, (N, H)), rng.uniform(-6, 6, (N, H))
    arrays = {
        "D": rng.normal(size=(1, H)),
        "log_step": rng.uniform(np.log(0.05), np.log(0.4), (1, H)),
    }
    if kind == "s4d":
        arrays |= {"A_re": real, "A_im": imag, "B_re": rng.normal(size=(N, H)), "B_im": rng.normal(size=(N, H))}
        arrays["C"] = rng.normal(size=(N, H, 2))
    elif kind == "dss":
        arrays |= {"Lambda_re": real, "Lambda_im": imag, "W": rng.normal(size=(1, H, N, 2))}
    else:
        arrays |= {"Lambda_re": real, "Lambda_im": imag, "C": rng.normal(size=(N, H, 2))}
    new = {name: np.asarray(a, "f4") for name, a in arrays.items()}
    if kind == "s4":
        for name in ("P", "B"):
            new[name] = (rng.normal(size=(N, H)) + 1j * rng.normal(size=(N, H))).astype("c8")
    return new


def annotated_model(
    rng: np.random.Generator,
    kind: str,
    layers: int = 2,
    N: int = 5,
    H: int = 4,
    glu: bool = True,
    embedding: bool = False,
    decoding: bool = False,
) -> Arrays:
    """The stacked model with the collections of flax; `decoding` adds the state-sized ones."""

    def dense(name: str, into: int, out: int) -> Arrays:
        return {
            f"params/{name}/kernel": (rng.normal(size=(into, out)) / np.sqrt(into)).astype("f4"),
            f"params/{name}/bias": (0.1 * rng.normal(size=out)).astype("f4"),
        }

    arrays: Arrays = dense("decoder", H, 3)
    arrays |= (
        # The encoder is an embedding around another one, and only the inner table is looked at.
        {f"params/encoder/{inner}embedding": rng.normal(size=(3, H)).astype("f4") for inner in ("", "Embed_0/")}
        if embedding
        else dense("encoder", 1, H)
    )
    for i in range(layers):
        arrays |= {f"params/layers_{i}/seq/{name}": a for name, a in annotated_layer(rng, kind, N, H).items()}
        arrays |= dense(f"layers_{i}/out", H, H) | (dense(f"layers_{i}/out2", H, H) if glu else {})
        arrays[f"params/layers_{i}/norm/scale"] = rng.uniform(0.8, 1.2, H).astype("f4")
        arrays[f"params/layers_{i}/norm/bias"] = rng.normal(size=H).astype("f4")
        if decoding:
            arrays[f"cache/layers_{i}/seq/cache_x_k"] = np.zeros((1, N, H), "c8")
            arrays[f"prime/layers_{i}/seq/ssm/0"] = np.zeros((N, H, N), "c8")
    return arrays
