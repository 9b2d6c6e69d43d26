"""`src/models/sequence/ss/standalone/dss.py` of ag1988/dss."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tests.docs.standins.s4_repository import convolved, one_sided


class DSSKernel(nn.Module):
    def __init__(self, H, N, channels, version, sep_dt_re_im):
        super().__init__()
        self.version = version
        self.log_dt = nn.Parameter(torch.empty(H, 2 if sep_dt_re_im else 1).uniform_(-3, -1).squeeze(-1))
        self.W = nn.Parameter(torch.randn(channels, H, N, 2))
        real, imag = -torch.empty(N).uniform_(0.2, 0.9), np.pi * torch.arange(N) + 0.5
        if version == "softmax":
            self.Lambda = nn.Parameter(torch.stack([real, imag], -1))
        else:
            self.Lambda_log_neg_re, self.Lambda_im = nn.Parameter((-real).log()), nn.Parameter(imag)

    def forward(self, L):
        if self.version == "softmax":
            a = torch.view_as_complex(self.Lambda)
        else:
            a = -self.Lambda_log_neg_re.exp() + 1j * self.Lambda_im
        dt = self.log_dt.exp().reshape(len(self.log_dt), -1)
        step = dt[:, :1] * a.real + 1j * dt[:, -1:] * a.imag
        rows = torch.exp(step[..., None] * torch.arange(L))
        if self.version == "softmax":
            rows = rows / rows.sum(-1, keepdim=True) / a[:, None]
        else:
            rows = rows * ((step.exp() - 1) / a)[..., None]
        return torch.einsum("chn,hnl->chl", torch.view_as_complex(self.W), rows).real


class DSS(nn.Module):
    def __init__(
        self,
        d_model,
        d_state=64,
        l_max=1,
        channels=1,
        bidirectional=False,
        activation="gelu",
        postact=None,
        dropout=0.0,
        transposed=True,
        *,
        version="softmax",
        sep_dt_re_im=True,
    ):
        super().__init__()
        self.h, self.transposed, self.bidirectional = d_model, transposed, bidirectional
        self.D = nn.Parameter(torch.randn(channels, d_model))
        rows = channels * (2 if bidirectional else 1)
        self.kernel = DSSKernel(d_model, d_state, rows, version, sep_dt_re_im)
        self.dropout = nn.Dropout(dropout)
        self.output_linear = nn.Linear(channels * d_model, d_model)

    def forward(self, u, **_):
        u = u if self.transposed else u.mT
        k = self.kernel(u.shape[-1])
        if self.bidirectional:
            ahead = functional.pad(k[len(k) // 2 :].flip(-1)[..., 1:], (0, u.shape[-1]))
            k = one_sided(k[: len(k) // 2]) + ahead
        else:
            k = one_sided(k)
        y = (convolved(u, k) + self.D[:, :, None] * u[:, None]).flatten(1, 2)
        y = self.output_linear(functional.gelu(y).mT)
        return y.mT if self.transposed else y, None


MODULES = {"src.models.sequence.ss.standalone.dss": {"DSS": DSS}}
