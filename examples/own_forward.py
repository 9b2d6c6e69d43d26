"""A forward function of one's own, so that sweep, eval and prune measure a model that `last` does not know.

    python examples/own_forward.py

The same function serves the command line: last sweep model.safetensors --forward examples/own_forward.py:forward …
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import lastcli

STATES, FEATURES, WIDTH, CLASSES = 16, 2, 8, 3


def forward(tensors: dict[str, np.ndarray], x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """Logits (n, classes): an LRU layer, tanh, the mean over time, a linear head.

    `tensors` are those of the candidate: their state axes are as short as what `last prune` would write.
    """
    poles = np.exp(-np.exp(tensors["cell.nu_log"]) + 1j * np.exp(tensors["cell.theta_log"]))
    B = np.exp(tensors["cell.gamma_log"])[:, None] * tensors["cell.B"]
    state, total = np.zeros((len(x), len(poles)), complex), 0
    for k in range(x.shape[1]):
        state = poles * state + x[:, k] @ B.T
        total = total + np.tanh((state @ tensors["cell.C"].T).real + x[:, k] @ tensors["cell.D"].T)
    return total / x.shape[1] @ tensors["head.weight"].T


def model(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One LRU layer and a head, not trained."""
    radius, angle = rng.uniform(0.5, 0.97, STATES), rng.uniform(0.05, 3, STATES)
    loud = 0.75 ** np.arange(STATES)  # a few states are read strongly and most weakly, as training leaves them
    parts = rng.normal(size=(2, STATES, FEATURES)), rng.normal(size=(2, WIDTH, STATES)) * loud
    B, C = (real + 1j * imaginary for real, imaginary in parts)
    return {
        "cell.nu_log": np.log(-np.log(radius)).astype(np.float32),
        "cell.theta_log": np.log(angle).astype(np.float32),
        "cell.gamma_log": np.log(np.sqrt(1 - radius**2)).astype(np.float32),
        "cell.B": B.astype(np.complex64),
        "cell.C": C.astype(np.complex64),
        "cell.D": rng.normal(size=(WIDTH, FEATURES)).astype(np.float32),
        "head.weight": rng.normal(size=(CLASSES, WIDTH)).astype(np.float32),
    }


def main(folder: Path) -> None:
    """Write a model and a split whose labels are the model's own answers; sweep, and cut within five points."""
    rng = np.random.default_rng(0)
    checkpoint, data = folder / "model.safetensors", folder / "test.npz"
    tensors = model(rng)
    save_file(tensors, checkpoint)
    x = rng.normal(size=(128, 24, FEATURES)).astype(np.float32)
    np.savez(data, x=x, y=forward(tensors, x).argmax(-1))

    mine = {"forward": f"{__file__}:forward", "data": str(data)}
    for row in lastcli.sweep(checkpoint, methods="aire,obs", ratios="0.25,0.5,0.75", **mine).rows:
        print(f"{row.method} with refit {row.refit}: {row.ratio:.0%} of the states removed, accuracy {row.value:.3f}")
    result = lastcli.prune(checkpoint, folder / "small.safetensors", method="obs", max_drop=0.05, **mine)
    print(f"within 5 points: {result.states_before} → {result.states_after} states")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
