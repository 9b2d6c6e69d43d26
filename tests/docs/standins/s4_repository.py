"""`models/s4` of state-spaces/s4 (V4): S4D, S4Block with its diagonal kernel, and the model of example.py."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

TRANSFORMS = {"exp": torch.exp, "softplus": functional.softplus, "none": lambda x: x}


def convolved(u: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """(B, C, H, L) of u (B, H, L) and two-sided kernels k (C, H, 2L - 1), lag zero in the middle."""
    length = u.shape[-1]
    lags = torch.arange(length)[:, None] - torch.arange(length) + length - 1
    return torch.einsum("chts,bhs->bcht", k[..., lags], u)


def one_sided(k: torch.Tensor) -> torch.Tensor:
    return functional.pad(k, (k.shape[-1] - 1, 0))


class S4DKernel(nn.Module):
    def __init__(self, d_model: int, N: int = 64):
        super().__init__()
        self.C = nn.Parameter(torch.randn(d_model, N // 2, 2))
        self.log_dt = nn.Parameter(torch.empty(d_model).uniform_(np.log(0.02), np.log(0.3)))
        self.log_A_real = nn.Parameter(torch.full((d_model, N // 2), 0.5).log())
        self.A_imag = nn.Parameter(np.pi * torch.arange(N // 2).repeat(d_model, 1))

    def forward(self, L: int) -> torch.Tensor:
        a, dt = -self.log_A_real.exp() + 1j * self.A_imag, self.log_dt.exp()[:, None]
        read = torch.view_as_complex(self.C) * torch.expm1(a * dt) / a
        return 2 * (read[..., None] * torch.exp((a * dt)[..., None] * torch.arange(L))).sum(1).real


class S4D(nn.Module):
    def __init__(self, d_model, d_state=64, dropout=0.0, transposed=True, lr=None):
        super().__init__()
        self.h, self.transposed = d_model, transposed
        self.D = nn.Parameter(torch.randn(d_model))
        self.kernel = S4DKernel(d_model, d_state)
        self.dropout = nn.Dropout(dropout)
        self.output_linear = nn.Sequential(nn.Conv1d(d_model, 2 * d_model, 1), nn.GLU(dim=-2))

    def forward(self, u, **_):
        u = u if self.transposed else u.mT
        y = convolved(u, one_sided(self.kernel(u.shape[-1])[None]))[:, 0] + self.D[:, None] * u
        y = self.output_linear(self.dropout(functional.gelu(y)))
        return y if self.transposed else y.mT, None


class S4Model(nn.Module):
    """The classifier of example.py."""

    def __init__(self, layer, d_input=1, d_output=3, d_model=4, n_layers=2, dropout=0.2, prenorm=False):
        super().__init__()
        self.prenorm = prenorm
        self.encoder = nn.Linear(d_input, d_model)
        self.s4_layers = nn.ModuleList(layer(d_model) for _ in range(n_layers))
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(n_layers))
        self.decoder = nn.Linear(d_model, d_output)

    def forward(self, x):
        x = self.encoder(x)
        for layer, norm in zip(self.s4_layers, self.norms):
            y = layer((norm(x) if self.prenorm else x).mT)[0].mT
            x = x + y if self.prenorm else norm(x + y)
        return self.decoder(x.mean(1))


class DiagonalKernel(nn.Module):
    def __init__(self, H, rows, d_state, n_ssm, disc, dt_transform, real_transform, imag_transform):
        super().__init__()
        N, S, self.rules = d_state // 2, n_ssm or H, (disc, dt_transform, real_transform, imag_transform)
        self.C = nn.Parameter(torch.randn(rows, H, N, 2))
        self.B = nn.Parameter(torch.randn(1, S, N, 2))
        self.inv_dt = nn.Parameter(torch.empty(H, 1).uniform_(-3, -1))
        self.A_real = nn.Parameter(torch.empty(S, N).uniform_(-1.5, 0))
        self.A_imag = nn.Parameter(-np.pi * torch.arange(N).repeat(S, 1) - 0.3)

    def forward(self, L: int) -> torch.Tensor:
        disc, dt_transform, real, imag = self.rules
        copies = self.C.shape[1] // len(self.A_real)
        dt = TRANSFORMS[dt_transform](self.inv_dt)
        a = (-TRANSFORMS[real](self.A_real) - 1j * TRANSFORMS[imag](self.A_imag)).repeat(copies, 1)
        read = torch.view_as_complex(self.C) * torch.view_as_complex(self.B).repeat(1, copies, 1)
        pole = torch.exp(a * dt) if disc != "bilinear" else (1 + a * dt / 2) / (1 - a * dt / 2)
        if disc == "dss":
            rows = pole[..., None] ** torch.arange(L)
            return torch.einsum("chn,hnl->chl", read / a, rows / rows.sum(-1, keepdim=True)).real
        gain = (pole - 1) / a if disc == "zoh" else dt / (1 - a * dt / 2)
        return 2 * torch.einsum("chn,hnl->chl", read * gain, pole[..., None] ** torch.arange(L)).real


class Convolution(nn.Module):
    """The layer between a block and its kernel."""

    def __init__(self, H, channels, bidirectional, activation, **kernel):
        super().__init__()
        self.bidirectional, self.gated = bidirectional, activation == "glu"
        heads = channels * (2 if self.gated else 1)
        self.D = nn.Parameter(torch.randn(heads, H))
        self.kernel = DiagonalKernel(H, heads * (2 if bidirectional else 1), **kernel)
        self.d_output = channels * H

    def forward(self, x):
        u = x.mT
        k = self.kernel(u.shape[-1])
        if self.bidirectional:
            ahead = functional.pad(k[len(k) // 2 :].flip(-1)[..., 1:], (0, u.shape[-1]))
            k = one_sided(k[: len(k) // 2]) + ahead
        else:
            k = one_sided(k)
        y = convolved(u, k) + self.D[:, :, None] * u[:, None]
        y = y.flatten(1, 2).mT
        return functional.glu(y, -1) if self.gated else functional.gelu(y)


class S4Block(nn.Module):
    def __init__(
        self,
        d_model,
        final_act="glu",
        dropout=0.0,
        tie_dropout=False,
        transposed=True,
        *,
        mode="dplr",
        channels=1,
        bidirectional=False,
        activation="gelu",
        d_state=64,
        n_ssm=None,
        disc="zoh",
        dt_transform="exp",
        real_transform="exp",
        imag_transform="none",
        init="legs",
        lr=None,
        l_max=None,
    ):
        super().__init__()
        self.d_model, self.transposed = d_model, transposed
        rules = {"dt_transform": dt_transform, "real_transform": real_transform, "imag_transform": imag_transform}
        self.layer = Convolution(
            d_model, channels, bidirectional, activation, d_state=d_state, n_ssm=n_ssm, disc=disc, **rules
        )
        if mode == "dplr":
            kernel = self.layer.kernel
            kernel.P = nn.Parameter(0.3 * torch.randn(1, *kernel.A_real.shape, 2))
            kernel.register_buffer("l_kernel", torch.tensor(0))
        self.drop = nn.Dropout(dropout)
        self.output_linear = nn.Identity()
        if final_act is not None:
            doubled = 2 if final_act == "glu" else 1
            act = nn.GLU(dim=-1) if final_act == "glu" else nn.Identity()
            self.output_linear = nn.Sequential(nn.Linear(self.layer.d_output, doubled * d_model), act)

    def forward(self, x, **_):
        y = self.output_linear(self.drop(self.layer(x.mT if self.transposed else x)))
        return y.mT if self.transposed else y, None


MODULES = {"models.s4.s4d": {"S4D": S4D}, "models.s4.s4": {"S4Block": S4Block}}
