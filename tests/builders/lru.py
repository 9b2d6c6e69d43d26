"""Tiny LRU checkpoints in the exact spelling of each project."""

from __future__ import annotations

import numpy as np

from tests.builders.named import Arrays


def logs(rng: np.random.Generator, states: int) -> Arrays:
    nu = np.log(-np.log(rng.uniform(0.5, 0.97, states)))
    theta = np.log(rng.uniform(0.05, 6.2, states))
    gamma = 0.5 * np.log(1 - np.exp(-np.exp(nu)) ** 2) + rng.normal(0, 0.1, states)
    return {"nu_log": nu.astype("f4"), "theta_log": theta.astype("f4"), "gamma_log": gamma.astype("f4")}


def flax_layer(rng: np.random.Generator, states: int, width: int) -> Arrays:
    """minimal-LRU and compressm: real and imaginary parts apart, D a vector."""
    normal = lambda *shape: rng.normal(0, 0.5, shape).astype("f4")  # noqa: E731
    return {
        **logs(rng, states),
        "B_re": normal(states, width),
        "B_im": normal(states, width),
        "C_re": normal(width, states),
        "C_im": normal(width, states),
        "D": normal(width),
    }


def torch_layer(rng: np.random.Generator, states: int, inputs: int, outputs: int, B: str = "B") -> Arrays:
    """LRU-pytorch, lru-reduction ("B") and DecodEPFL ("B", later "Bp"): native complex, D a matrix."""
    normal = lambda *shape: rng.normal(0, 0.5, shape)  # noqa: E731
    return {
        "D": normal(outputs, inputs).astype("f4"),
        **logs(rng, states),
        B: (normal(states, inputs) + 1j * normal(states, inputs)).astype("c8"),
        "C": (normal(outputs, states) + 1j * normal(outputs, states)).astype("c8"),
    }


def minimal_lru(
    rng: np.random.Generator,
    *,
    states: int = 6,
    width: int = 5,
    layers: int = 2,
    features: int = 3,
    classes: int = 4,
    norm: str = "batch",
    root: str = "params/",
) -> Arrays:
    """The classifier of minimal-LRU as a flattened flax train state."""
    normal = lambda *shape: rng.normal(0, 0.6, shape).astype("f4")  # noqa: E731
    arrays: Arrays = {}

    def dense(path: str, inputs: int, outputs: int) -> None:
        arrays[f"{path}/kernel"], arrays[f"{path}/bias"] = normal(inputs, outputs), normal(outputs)

    dense(f"{root}encoder/encoder", features, width)
    for i in range(layers):
        path = f"encoder/layers_{i}"
        arrays.update({f"{root}{path}/seq/{k}": v for k, v in flax_layer(rng, states, width).items()})
        dense(f"{root}{path}/out1", width, width)
        dense(f"{root}{path}/out2", width, width)
        arrays[f"{root}{path}/normalization/scale"] = 1 + normal(width)
        arrays[f"{root}{path}/normalization/bias"] = normal(width)
        if norm == "batch":
            arrays[f"batch_stats/{path}/normalization/mean"] = normal(width)
            arrays[f"batch_stats/{path}/normalization/var"] = np.exp(normal(width))
    dense(f"{root}decoder", width, classes)
    return arrays


def torch_model(
    rng: np.random.Generator,
    *,
    states: int = 6,
    width: int = 4,
    layers: int = 2,
    features: int = 2,
    outputs: int = 3,
    ff: str = "GLU",
    bias: bool = False,
    gates: int = 0,
    each: bool = False,
) -> Arrays:
    """DeepSSM of DecodEPFL (no biases around the blocks), or DLRU of lru-reduction (`bias`).

    With 1 or 2 residual `gates` (one for `each` channel) it is a later DeepSSM, which has no norms and calls B Bp.
    """
    normal = lambda *shape: np.float32(rng.normal(0, 0.6, shape))  # noqa: E731
    arrays: Arrays = {}

    def linear(path: str, inputs: int, out: int, with_bias: bool) -> None:
        arrays[f"{path}.weight"] = normal(out, inputs)
        if with_bias:
            arrays[f"{path}.bias"] = normal(out)

    linear("encoder", features, width, bias)
    linear("decoder", width, outputs, bias)
    for i in range(layers):
        block = f"blocks.{i}"
        if not gates:
            arrays[f"{block}.ln.weight"] = 1 + normal(width)
        if bias:
            arrays[f"{block}.ln.bias"] = normal(width)
        for gate in {0: (), 1: ("res_logit",), 2: ("ssm_res_logit", "ff_res_logit")}[gates]:
            arrays[f"{block}.{gate}"] = np.asarray(normal(width) if each else normal())
        B = "Bp" if gates else "B"
        arrays.update({f"{block}.lru.{k}": v for k, v in torch_layer(rng, states, width, width, B).items()})
        if ff == "GLU":
            linear(f"{block}.ff.output_linear.0", width, 2 * width, True)
        elif ff == "LGLU2":
            for part in "AB":
                arrays[f"{block}.ff.{part}.W_raw"] = normal(width, width)
            arrays[f"{block}.ff.raw_lip"] = normal(width)
        elif ff == "LGLU":
            stored = f"{block}.ff.lin.parametrizations.weight"
            arrays |= {f"{block}.ff.raw_lip": normal(width), f"{stored}.original": normal(2 * width, width)}
            arrays |= {f"{stored}.0._u": normal(2 * width), f"{stored}.0._v": normal(width)}
        elif ff == "LMLP":
            for number, (into, out) in enumerate(((width, 7), (7, 7), (7, width)), start=1):
                path = f"{block}.ff.model.{number}"
                arrays |= {f"{path}.weight": normal(out, into + out), f"{path}.alpha": np.asarray(1 + normal())}
                if number < 3:
                    arrays[f"{path}.psi"] = normal(out)
        elif ff == "net":
            linear(f"{block}.ff.net.0", width, 7, False)
            linear(f"{block}.ff.net.1", 7, 7, False)
            linear(f"{block}.ff.net.3", 7, width, False)
        else:
            linear(f"{block}.ff.c_fc", width, 4 * width, bias)
            linear(f"{block}.ff.c_proj", 4 * width, width, bias)
    return arrays


SPELLINGS = {
    "flax": lambda rng: {f"seq/{k}": v for k, v in flax_layer(rng, 6, 4).items()},
    "equinox": lambda rng: {f".blocks[0].lru.{k}": v for k, v in flax_layer(rng, 6, 4).items()},
    "torch": lambda rng: torch_layer(rng, 6, 3, 4),
    "decodepfl": lambda rng: {f"blocks.0.lru.{k}": v for k, v in torch_layer(rng, 6, 4, 4, "Bp").items()},
    "pairs": lambda rng: pairs({f"lru.{k}": v for k, v in torch_layer(rng, 6, 3, 4).items()}),
}


def pairs(arrays: Arrays) -> Arrays:
    """Complex tensors as real ones with a last axis of 2, as `view_as_real` leaves them."""
    return {name: np.stack([a.real, a.imag], -1) if a.dtype.kind == "c" else a for name, a in arrays.items()}
