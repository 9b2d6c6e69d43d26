"""S5 in flax: from a train state to a smaller one, and the smaller one in flax again.

    python examples/s5_flax.py

The model is tiny and not trained; the labels are its own answers, so that it is always right and a smaller one can be
compared with it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from flax.serialization import msgpack_serialize
from flax.traverse_util import unflatten_dict

import lastcli
from lastcli.model.flax import flax_module

FEATURES, WIDTH, STATES, LAYERS, CLASSES = 2, 6, 12, 2, 3


def train_state(rng: np.random.Generator) -> dict:
    """The tree that the published S5 code saves: parameters, and the statistics of the batch norms."""

    def dense(path: str, inputs: int, outputs: int) -> None:
        flat[f"params/{path}/kernel"] = rng.normal(0, 0.8, (inputs, outputs))
        flat[f"params/{path}/bias"] = rng.normal(0, 0.1, outputs)

    flat: dict[str, np.ndarray] = {}
    dense("encoder/encoder", FEATURES, WIDTH)
    for i in range(LAYERS):
        layer, norm = f"encoder/layers_{i}/seq", f"encoder/layers_{i}/norm"
        flat |= {
            f"params/{layer}/Lambda_re": -rng.uniform(0.2, 2, STATES),
            f"params/{layer}/Lambda_im": rng.uniform(0, 12, STATES),
            f"params/{layer}/B": rng.normal(0, 0.5, (STATES, WIDTH, 2)),
            # a few states are read strongly and most weakly, as training leaves them
            f"params/{layer}/C": rng.normal(size=(WIDTH, STATES, 2)) * 0.7 ** np.arange(STATES)[:, None],
            f"params/{layer}/D": rng.normal(size=WIDTH),
            f"params/{layer}/log_step": np.log(rng.uniform(0.05, 0.3, (STATES, 1))),
            f"params/{norm}/scale": np.ones(WIDTH),
            f"params/{norm}/bias": np.zeros(WIDTH),
            f"batch_stats/{norm}/mean": np.zeros(WIDTH),
            f"batch_stats/{norm}/var": np.ones(WIDTH),
        }
        dense(f"encoder/layers_{i}/out2", WIDTH, WIDTH)
    dense("decoder", WIDTH, CLASSES)
    return unflatten_dict({path: leaf.astype(np.float32) for path, leaf in flat.items()}, sep="/")


def answers(path: Path, x: np.ndarray) -> np.ndarray:
    """What the model in a file says, in flax."""
    module, variables = flax_module(lastcli.open(path))
    return np.asarray(module.apply(variables, x)).argmax(-1)


def main(folder: Path) -> None:
    """Write a checkpoint, describe it, look at the curve, cut, load."""
    rng = np.random.default_rng(0)
    full, small = folder / "model.msgpack", folder / "small.msgpack"
    full.write_bytes(msgpack_serialize(train_state(rng)))
    # what tensors cannot say stands beside them
    description = {"family": "s5", "activation": "half_glu1", "prenorm": True, "norm": "batch", "mode": "pool"}
    full.with_suffix(".json").write_text(json.dumps(description))

    inputs, x = 0.5 * rng.normal(size=(2, 64, 20, FEATURES)).cumsum(axis=2).astype(np.float32)
    y = answers(full, x)
    np.savez(folder / "calibration.npz", x=inputs)
    np.savez(folder / "test.npz", x=x, y=y)
    data = {"data": str(folder / "test.npz"), "calibration": str(folder / "calibration.npz")}

    curve = lastcli.sweep(full, methods="last,obs", ratios="0.5", **data)
    for row in curve.rows:
        print(f"{row.method} with refit {row.refit}: {row.ratio:.0%} of the states removed, accuracy {row.value:.3f}")

    # the published model has one state size for all layers
    result = lastcli.prune(full, small, method="obs", ratio=0.5, layout="uniform", calibration=data["calibration"])
    print(
        f"{result.states_before} → {result.states_after} states, {full.stat().st_size} → {small.stat().st_size} bytes"
    )
    print(f"in flax: {np.mean(answers(small, x) == y):.3f} of the answers are the same")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
