"""`s5` of i404788/s5-pytorch: the block, its layer, and the state space inside."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class S5SSM(nn.Module):
    def __init__(self, h, p, bidir):
        super().__init__()
        self.Lambda = nn.Parameter(torch.complex(-torch.rand(p) - 0.2, 4 * torch.randn(p)))
        self.C = nn.Parameter(torch.randn(h, 2 * p if bidir else p, dtype=torch.complex64))
        self.B = nn.Parameter(torch.randn(p, h, 2))
        self.D = nn.Parameter(torch.rand(h))
        self.log_step = nn.Parameter(torch.empty(p).uniform_(-3, -1))

    def forward(self, u):
        pole = torch.exp(self.Lambda * self.log_step.exp())
        drive = u.to(pole.dtype) @ (((pole - 1) / self.Lambda)[:, None] * torch.view_as_complex(self.B)).T

        def scan(drive):
            x, seen = torch.zeros_like(drive[:, 0]), []
            for step in drive.unbind(1):
                x = pole * x + step
                seen.append(x)
            return torch.stack(seen, 1)

        x = scan(drive)
        if self.C.shape[1] != len(pole):
            x = torch.cat([x, scan(drive.flip(1)).flip(1)], -1)
        return (x @ self.C.T).real + self.D * u


class S5(nn.Module):
    def __init__(self, width, state_width=None, block_count=1, bidir=False):
        super().__init__()
        state_width = state_width or width
        assert state_width % block_count == 0
        self.width, self.seq = width, S5SSM(width, state_width, bidir)

    def forward(self, signal):
        return self.seq(signal)


class S5Block(nn.Module):
    def __init__(self, dim, state_dim, bidir, block_count=1, ff_mult=1.0, glu=True, ff_dropout=0.0, attn_dropout=0.0):
        super().__init__()
        self.s5 = S5(dim, state_width=state_dim, block_count=block_count, bidir=bidir)
        self.attn_norm, self.ff_norm, self.glu = nn.LayerNorm(dim), nn.LayerNorm(dim), glu
        inner = int(dim * ff_mult)
        self.ff_enc = nn.Linear(dim, inner * (2 if glu else 1), bias=False)
        self.ff_dec = nn.Linear(inner, dim, bias=False)

    def forward(self, x):
        x = self.attn_norm(x)
        x = self.ff_norm(functional.gelu(self.s5(x)) + x)
        inner = self.ff_enc(x)
        if self.glu:
            value, gate = inner.chunk(2, -1)
            inner = value * functional.gelu(gate)
        return self.ff_dec(inner) + x


MODULES = {"s5": {"S5Block": S5Block, "S5": S5}}
