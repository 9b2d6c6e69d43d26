"""`fairseq.modules.exponential_moving_average` of facebookresearch/mega."""

from __future__ import annotations

import torch
from torch import nn


class MultiHeadEMA(nn.Module):
    def __init__(self, embed_dim, ndim=2, bidirectional=False, truncation=None):
        super().__init__()
        self.embed_dim, self.ndim = embed_dim, ndim
        self.bidirectional, self.truncation = bidirectional, truncation
        rows = 2 * embed_dim if bidirectional else embed_dim
        for name in ("delta", "alpha", "beta"):
            self.register_parameter(name, nn.Parameter(torch.randn(rows, ndim, 1)))
        self.gamma = nn.Parameter(torch.randn(rows, ndim))
        self.omega = nn.Parameter(torch.randn(embed_dim))

    def forward(self, x):  # (L, batch, D)
        gain = torch.sigmoid(self.delta)
        decay = (1 - gain * torch.sigmoid(self.alpha))[..., 0]
        into, read = (gain * self.beta)[..., 0], self.gamma / self.ndim**0.5
        lags = len(x) if self.truncation is None else min(self.truncation, len(x))
        kernel = (read * into)[:, :, None] * decay[:, :, None] ** torch.arange(lags)
        kernel = kernel.sum(1)
        y = [x[t] * self.omega for t in range(len(x))]
        for t in range(len(x)):
            for lag in range(min(lags, t + 1)):
                y[t] = y[t] + kernel[: self.embed_dim, lag] * x[t - lag]
            for lag in range(min(lags, len(x) - t) if self.bidirectional else 0):
                y[t] = y[t] + kernel[self.embed_dim :, lag] * x[t + lag]
        return nn.functional.silu(torch.stack(y))


MODULES = {"fairseq.modules.exponential_moving_average": {"MultiHeadEMA": MultiHeadEMA}}
