"""S4D in torch: prune a `.pth`, put layers of the new sizes in place, load, go on as before.

    python examples/s4d_torch.py

The model is that of the S4 repository's example, so `last` knows what surrounds the layers. It is tiny and not trained;
the labels are its own answers.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

import lastcli


class Kernel(nn.Module):
    """The impulse responses of `width` channels with `states` conjugate pairs each, under the published names."""

    def __init__(self, width: int, states: int):
        super().__init__()
        # a few states are read strongly and most weakly, as training leaves them
        self.C = nn.Parameter(torch.randn(width, states, 2) * 0.6 ** torch.arange(states)[:, None])
        self.log_dt = nn.Parameter(torch.empty(width).uniform_(-3, -1.5))
        self.log_A_real = nn.Parameter(torch.full((width, states), 0.5).log())
        self.A_imag = nn.Parameter(torch.pi * torch.arange(states).repeat(width, 1).float())

    def forward(self, length: int) -> torch.Tensor:
        a = torch.complex(-self.log_A_real.exp(), self.A_imag)
        step = a * self.log_dt.exp()[:, None]
        read = torch.view_as_complex(self.C) * (step.exp() - 1) / a
        return 2 * torch.einsum("hn,hnl->hl", read, (step[..., None] * torch.arange(length)).exp()).real


class S4D(nn.Module):
    """(batch, width, length) to the same."""

    def __init__(self, width: int, states: int):
        super().__init__()
        self.D = nn.Parameter(torch.randn(width))
        self.kernel = Kernel(width, states)
        self.output_linear = nn.Sequential(nn.Conv1d(width, 2 * width, 1), nn.GLU(dim=-2))

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        length = u.shape[-1]
        spectrum = torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(self.kernel(length), n=2 * length)
        y = torch.fft.irfft(spectrum, n=2 * length)[..., :length] + self.D[:, None] * u
        return self.output_linear(nn.functional.gelu(y))


class Model(nn.Module):
    """Encoder, blocks with a norm behind each, the mean over time, decoder; `states` for each layer."""

    def __init__(self, states: list[int], features: int = 2, width: int = 6, classes: int = 3):
        super().__init__()
        self.encoder = nn.Linear(features, width)
        self.s4_layers = nn.ModuleList(S4D(width, number) for number in states)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in states)
        self.decoder = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.encoder(x)
        for layer, norm in zip(self.s4_layers, self.norms):
            x = norm(x + layer(x.mT).mT)
        return self.decoder(x.mean(dim=1))


@torch.no_grad()
def answers(model: Model, x: np.ndarray) -> np.ndarray:
    """The class of every example."""
    return model.eval()(torch.from_numpy(x)).argmax(-1).numpy()


def main(folder: Path) -> None:
    """Save a model, cut it, load the smaller one."""
    torch.manual_seed(0)
    model = Model([8, 8])
    torch.save(model.state_dict(), folder / "model.pth")

    inputs, x = 0.5 * np.random.default_rng(0).normal(size=(2, 64, 20, 2)).cumsum(axis=2).astype(np.float32)
    y = answers(model, x)
    np.savez(folder / "calibration.npz", x=inputs)
    np.savez(folder / "test.npz", x=x, y=y)

    result = lastcli.prune(
        folder / "model.pth",
        folder / "small.pth",
        method="obs",
        ratio=0.5,
        calibration=str(folder / "calibration.npz"),
        data=str(folder / "test.npz"),
        model={"prenorm": False},
    )
    print(f"{result.states_before} → {result.states_after} states; `last` measured {result.measured.value:.3f}")

    weights = torch.load(folder / "small.pth", weights_only=True)
    states = [weights[f"s4_layers.{i}.kernel.C"].shape[1] for i in range(len(model.s4_layers))]
    small = Model(states)
    small.load_state_dict(weights)
    print(
        f"in torch, with {states} states a channel: {np.mean(answers(small, x) == y):.3f} of the answers are the same"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
