"""A model that nobody knows, around layers that `last` knows: record the layers' inputs, calibrate on them.

    python examples/capture_wrapper.py

`last` cannot run this model, so your own code does: once to record what arrives at the layers, once to measure.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

import lastcli
from s4d_torch import S4D


class Wrapper(nn.Module):
    """Two branches of S4D layers that are multiplied; no published model looks like this."""

    def __init__(self, states: list[int], features: int = 2, width: int = 6, classes: int = 3):
        super().__init__()
        self.inwards = nn.Linear(features, width)
        self.branches = nn.ModuleList(S4D(width, number) for number in states)
        self.outwards = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inwards(x).mT
        left, right = (branch(x) for branch in self.branches)
        return self.outwards((torch.tanh(left) * right + left).mean(dim=-1))


@torch.no_grad()
def outputs(model: Wrapper, x: np.ndarray) -> np.ndarray:
    """Of every example."""
    return model.eval()(torch.from_numpy(x)).numpy()


def main(folder: Path) -> None:
    """Save a model, record, cut with and without what was recorded, load both and compare."""
    torch.manual_seed(0)
    model = Wrapper([8, 8]).eval()
    checkpoint, recorded = folder / "model.pth", folder / "inputs.safetensors"
    torch.save(model.state_dict(), checkpoint)

    unlabelled, x = np.random.default_rng(0).normal(size=(2, 64, 24, 2)).astype(np.float32)
    with torch.no_grad(), lastcli.capture(checkpoint, model, recorded):
        for batch in torch.from_numpy(unlabelled).split(16):
            model(batch)

    before = outputs(model, x)
    for name, given in (("last", {}), ("obs", {"layer_inputs": str(recorded)})):
        result = lastcli.prune(checkpoint, folder / f"{name}.pth", method=name, ratio=0.5, **given)
        weights = torch.load(folder / f"{name}.pth", weights_only=True)
        small = Wrapper([weights[f"branches.{i}.kernel.C"].shape[1] for i in range(2)])
        small.load_state_dict(weights)
        moved = np.linalg.norm(outputs(small, x) - before) / np.linalg.norm(before - before.mean(axis=0))
        sizes = f"{result.states_before} → {result.states_after} states"
        print(f"{name} with refit {result.refit}: {sizes}, outputs moved by {moved:.4f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
