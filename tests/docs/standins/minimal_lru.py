"""`lru.model` of NicolasZucchet/minimal-LRU."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


class LRU(nn.Module):
    d_hidden: int
    d_model: int
    r_min: float = 0.4
    r_max: float = 0.95
    max_phase: float = 6.28

    @nn.compact
    def __call__(self, u):
        P, H, normal = self.d_hidden, self.d_model, nn.initializers.normal(0.5)

        def between(low, high):
            return lambda key, shape: jnp.log(jax.random.uniform(key, shape, minval=low, maxval=high))

        theta = self.param("theta_log", between(0.01, self.max_phase), (P,))
        nu = self.param("nu_log", between(-jnp.log(self.r_max), -jnp.log(self.r_min)), (P,))
        gamma = self.param("gamma_log", between(0.3, 0.9), (P,))
        B = self.param("B_re", normal, (P, H)) + 1j * self.param("B_im", normal, (P, H))
        C = self.param("C_re", normal, (H, P)) + 1j * self.param("C_im", normal, (H, P))
        D = self.param("D", normal, (H,))
        poles, x, seen = jnp.exp(-jnp.exp(nu) + 1j * jnp.exp(theta)), jnp.zeros(P, complex), []
        for push in u @ (jnp.exp(gamma)[:, None] * B).T:
            x = poles * x + push
            seen.append(x)
        return (jnp.stack(seen) @ C.T).real + D * u


class SequenceLayer(nn.Module):
    lru: Any
    d_model: int
    training: bool
    norm: str
    prenorm: bool

    def setup(self):
        self.seq, self.out1, self.out2 = self.lru(), nn.Dense(self.d_model), nn.Dense(self.d_model)
        if self.norm == "layer":
            self.normalization = nn.LayerNorm()
        else:
            self.normalization = nn.BatchNorm(use_running_average=not self.training, axis_name="batch")

    def __call__(self, x):
        y = nn.gelu(self.seq(self.normalization(x) if self.prenorm else x))
        y = x + self.out1(y) * nn.sigmoid(self.out2(y))
        return y if self.prenorm else self.normalization(y)


class Encoder(nn.Module):
    layer: Any
    d_model: int
    n_layers: int

    def setup(self):
        self.encoder, self.layers = nn.Dense(self.d_model), [self.layer() for _ in range(self.n_layers)]

    def __call__(self, x):
        x = self.encoder(x)
        for layer in self.layers:
            x = layer(x)
        return x


class ClassificationModel(nn.Module):
    lru: Any
    d_output: int
    d_model: int
    n_layers: int
    dropout: float = 0.0
    training: bool = True
    pooling: str = "mean"
    norm: str = "batch"
    prenorm: bool = False
    multidim: int = 1

    def setup(self):
        names = ("lru", "d_model", "training", "norm", "prenorm")
        layer = partial(SequenceLayer, **{name: getattr(self, name) for name in names})
        self.encoder = Encoder(layer, self.d_model, self.n_layers)
        self.decoder = nn.Dense(self.d_output)

    def __call__(self, x):
        x = self.encoder(x)
        return nn.log_softmax(self.decoder({"mean": lambda: x.mean(0), "last": lambda: x[-1]}[self.pooling]()))


BatchClassificationModel = nn.vmap(
    ClassificationModel,
    in_axes=0,
    out_axes=0,
    variable_axes={"params": None, "batch_stats": None},
    split_rngs={"params": False, "dropout": True},
    axis_name="batch",
)
MODULES = {"lru.model": {"LRU": LRU, "BatchClassificationModel": BatchClassificationModel}}
