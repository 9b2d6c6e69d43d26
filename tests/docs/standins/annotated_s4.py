"""`s4` of srush/annotated-s4: two of its layers, one system mapped over the channels, and the stack around them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

NORMAL = nn.initializers.normal(0.7)


def cloned(layer):
    return nn.vmap(layer, in_axes=1, out_axes=1, variable_axes={"params": 1}, split_rngs={"params": True})


def poles(module, real, imag):
    a = module.param(real, nn.initializers.constant(-0.5), (module.N,))
    return a + 1j * module.param(imag, lambda _, shape: jnp.arange(shape[0]) * 1.0, (module.N,))


def filtered(module, kernel, u):
    lags = jnp.arange(len(u))[:, None] - jnp.arange(len(u))
    return jnp.where(lags >= 0, kernel[lags], 0) @ u + module.param("D", NORMAL, (1,)) * u


class S4DLayer(nn.Module):
    N: int
    l_max: int
    decode: bool = False

    @nn.compact
    def __call__(self, u):
        a = poles(self, "A_re", "A_im")
        a = jnp.minimum(a.real, -1e-4) + 1j * a.imag
        for name in ("B_re", "B_im"):  # registered, and not part of the kernel
            self.param(name, NORMAL, (self.N,))
        C = self.param("C", NORMAL, (self.N, 2))
        step = jnp.exp(self.param("log_step", nn.initializers.constant(-1.5), (1,)))
        rows = jnp.exp(jnp.arange(self.l_max)[:, None] * a * step)
        return filtered(self, (rows @ ((C[:, 0] + 1j * C[:, 1]) * (jnp.exp(a * step) - 1) / a)).real, u)


class DSSLayer(nn.Module):
    N: int
    l_max: int
    decode: bool = False

    @nn.compact
    def __call__(self, u):
        a = poles(self, "Lambda_re", "Lambda_im")
        W = self.param("W", NORMAL, (1, self.N, 2))[0]
        step = jnp.exp(self.param("log_step", nn.initializers.constant(-1.5), (1,)))
        rows = jnp.exp(jnp.arange(self.l_max)[:, None] * a * step)
        return filtered(self, (rows / rows.sum(0) @ ((W[:, 0] + 1j * W[:, 1]) / a)).real, u)


S4DLayer, DSSLayer = cloned(S4DLayer), cloned(DSSLayer)


class SequenceBlock(nn.Module):
    layer_cls: Any
    layer: Any
    d_model: int
    prenorm: bool

    def setup(self):
        self.seq, self.norm = self.layer_cls(**self.layer), nn.LayerNorm()
        self.out, self.out2 = nn.Dense(self.d_model), nn.Dense(self.d_model)

    def __call__(self, x):
        y = nn.gelu(self.seq(self.norm(x) if self.prenorm else x))
        y = x + self.out(y) * nn.sigmoid(self.out2(y))
        return y if self.prenorm else self.norm(y)


class StackedModel(nn.Module):
    layer_cls: Any
    layer: Any
    d_output: int
    d_model: int
    n_layers: int
    prenorm: bool = True
    dropout: float = 0.0
    embedding: bool = False
    classification: bool = False
    training: bool = True
    decode: bool = False

    def setup(self):
        self.encoder, self.decoder = nn.Dense(self.d_model), nn.Dense(self.d_output)
        self.layers = [
            SequenceBlock(self.layer_cls, self.layer, self.d_model, self.prenorm) for _ in range(self.n_layers)
        ]

    def __call__(self, x):
        x = self.encoder(x)
        for layer in self.layers:
            x = layer(x)
        return nn.log_softmax(self.decoder(x.mean(0)))


BatchStackedModel = nn.vmap(
    StackedModel, in_axes=0, out_axes=0, variable_axes={"params": None}, split_rngs={"params": False, "dropout": True}
)
MODULES = {
    "s4.s4": {"BatchStackedModel": BatchStackedModel},
    "s4.s4d": {"S4DLayer": S4DLayer},
    "s4.dss": {"DSSLayer": DSSLayer},
}
