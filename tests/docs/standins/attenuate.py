"""aTENNuate's denoiser: its layers, and the constructor that takes their number of states."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F


class SSMLayer(nn.Module):
    def __init__(self, states: int, width: int):
        super().__init__()
        self.log_dt = nn.Parameter(torch.linspace(-4.0, -1.0, states))
        self.A = nn.Parameter(torch.stack([torch.full((states,), -0.4), torch.arange(states) * 3.1], -1))
        self.B = nn.Parameter(torch.randn(states, width))
        self.C = nn.Parameter(torch.randn(width, states) / states)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        dt, length = self.log_dt.exp(), u.shape[-1]
        pole = torch.complex(-dt * F.softplus(self.A[:, 0]), dt * self.A[:, 1])
        k = torch.exp(pole[:, None] * torch.arange(length)).real
        x = torch.fft.rfft(torch.einsum("bcl,nc->bnl", u, self.B * dt[:, None]), n=2 * length)
        x = torch.fft.irfft(x * torch.fft.rfft(k, n=2 * length), n=2 * length)[..., :length]
        return torch.einsum("bnl,dn->bdl", x, self.C)


class Mix(nn.Module):
    def __init__(self, inside: int, outside: int, factor: int, down: bool):
        super().__init__()
        self.weight, self.down = nn.Parameter(torch.randn(inside, outside, factor) / inside), down

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.down:
            return torch.einsum("bctr,cdr->bdt", x.unflatten(-1, (-1, self.weight.shape[2])), self.weight)
        return torch.einsum("bct,cdr->bdtr", x, self.weight).flatten(2)


class Norm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer_norm(x.transpose(1, 2)).transpose(1, 2)


def block(states: int, width: int, activated: bool = True) -> nn.Sequential:
    wide = width > 1
    before = [nn.Conv1d(width, width, 3, 1, 1, groups=width)] if wide else []
    after = [*([Norm(width)] if wide else []), nn.SiLU()] if activated else []
    return nn.Sequential(*before, SSMLayer(states, width), *after)


class Denoiser(nn.Module):
    def __init__(self, in_channels=1, channels=(16, 32), num_coeffs=16, repeat=16, resample_factors=(4, 4)):
        super().__init__()
        n, all_channels = num_coeffs * repeat, [in_channels, *channels]
        steps = list(zip(pairwise(all_channels), resample_factors))
        self.down_ssms = nn.ModuleList(nn.Sequential(block(n, a), Mix(a, b, r, True)) for (a, b), r in steps)
        self.up_ssms = nn.ModuleList(nn.Sequential(Mix(b, a, r, False), block(n, a)) for (a, b), r in steps)
        self.hid_ssms = nn.Sequential(*(block(n, channels[-1]) for _ in range(2)))
        self.last_ssms = nn.Sequential(block(n, in_channels), block(n, in_channels, activated=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for part in self.down_ssms:
            skips.append(x)
            x = part(x)
        x = self.hid_ssms(x)
        for part, skip in zip(reversed(self.up_ssms), reversed(skips)):
            x = part[1](part[0](x) + skip)
        return self.last_ssms(x)


MODULES = {"attenuate.model": {"Denoiser": Denoiser}}
