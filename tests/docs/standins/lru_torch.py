"""DLRU of forgi86/lru-reduction (`lru.linear`), and DeepSSM of DecodEPFL/SSM (`neural_ssm`) as its files of 2024 and
2025 hold it: without norm, with the state read before its update, the input map named `Bp`.
"""

from __future__ import annotations

import torch
from torch import nn


class LRU(nn.Module):
    input_map, before = "B", False

    def __init__(self, in_features, out_features, state_features, rmin=0.5, rmax=0.97, max_phase=3.0):
        super().__init__()
        self.in_features, self.out_features, self.state_features = in_features, out_features, state_features
        self.D = nn.Parameter(torch.randn(out_features, in_features))
        modulus = torch.empty(state_features).uniform_(rmin, rmax)
        self.nu_log = nn.Parameter((-modulus.log()).log())
        self.theta_log = nn.Parameter((max_phase * torch.rand(state_features) + 0.01).log())
        self.gamma_log = nn.Parameter((1 - modulus**2).sqrt().log())
        random = torch.randn(state_features, in_features, dtype=torch.complex64)
        self.register_parameter(self.input_map, nn.Parameter(random))
        self.C = nn.Parameter(torch.randn(out_features, state_features, dtype=torch.complex64) / 2)

    def forward(self, u):
        poles = torch.exp(torch.complex(-self.nu_log.exp(), self.theta_log.exp()))
        drive = u.to(poles.dtype) @ (self.gamma_log.exp()[:, None] * getattr(self, self.input_map)).T
        x, seen = torch.zeros_like(drive[:, 0]), []
        for step in drive.unbind(1):
            after = poles * x + step
            seen.append(x if self.before else after)
            x = after
        return (torch.stack(seen, 1) @ self.C.T).real + u @ self.D.T


class NeuralLRU(LRU):
    input_map, before = "Bp", True


class GLU(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.output_linear = nn.Sequential(nn.Linear(width, 2 * width), nn.GLU(dim=-1))

    def forward(self, x):
        return self.output_linear(nn.functional.gelu(x))


class Block(nn.Module):
    def __init__(self, layer, width, bias):
        super().__init__()
        self.ln, self.lru, self.ff, self.normed = nn.LayerNorm(width, bias=bias), layer, GLU(width), bias

    def forward(self, x):
        y = self.lru(self.ln(x) if self.normed else x)
        return x + self.ff(y[0] if isinstance(y, tuple) else y)  # neural_ssm gives its states too


class Stack(nn.Module):
    """Both models: DLRU has biases and a norm, DeepSSM has no biases and does not use its norm."""

    def __init__(self, layer, *, dlru, inputs=1, outputs=1, width=4, states=6, layers=2):
        super().__init__()
        self.encoder = nn.Linear(inputs, width, bias=dlru)
        self.blocks = nn.ModuleList(Block(layer(width, width, states), width, dlru) for _ in range(layers))
        self.decoder = nn.Linear(width, outputs, bias=dlru)

    def forward(self, u):
        x = self.encoder(u)
        for block in self.blocks:
            x = block(x)
        return self.decoder(x)


MODULES = {"lru.linear": {"LRU": LRU}, "neural_ssm.ssm.lti_cells": {"LRU": NeuralLRU}}
