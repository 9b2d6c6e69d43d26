"""`event_ssm` of Efficient-Scalable-Machine-Learning/event-ssm: stages of layers over asynchronous events."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

NORMAL = nn.initializers.normal(0.5)


class S5SSM(nn.Module):
    H_in: int
    H_out: int
    P: int
    block_size: int
    C_init: str
    discretization: str
    dt_min: float
    dt_max: float
    conj_sym: bool = True
    clip_eigs: bool = False
    step_rescale: float = 1.0
    stride: int = 1
    pooling_mode: str = "last"

    @nn.compact
    def __call__(self, u, times):
        assert self.P % self.block_size == 0
        P = self.P // 2 if self.conj_sym else self.P
        real = self.param("Lambda_re", nn.initializers.constant(-0.5), (P,))
        imag = self.param("Lambda_im", lambda _, shape: jnp.arange(shape[0]) / 2.0, (P,))
        B, C = self.param("B", NORMAL, (P, self.H_in, 2)), self.param("C", NORMAL, (self.H_out, P, 2))
        D = self.param("D", NORMAL, (self.H_in,) if self.H_in == self.H_out else (self.H_out, self.H_in))
        step = self.step_rescale * jnp.exp(self.param("log_step", nn.initializers.constant(-1.0), (P, 1))[:, 0])
        a = jnp.minimum(real, -1e-4 if self.clip_eigs else jnp.inf) + 1j * imag
        x, seen = jnp.zeros(P, complex), []
        for k in range(len(u)):
            pole = jnp.exp(a * step * times[k])
            gain = {
                "async": lambda: (jnp.exp(a * step) - 1) / a,
                "zoh": lambda pole=pole: (pole - 1) / a,
                "dirac": lambda: jnp.ones(P, complex),
            }[self.discretization]()
            x = pole * x + gain * ((B[..., 0] + 1j * B[..., 1]) @ u[k])
            seen.append(x)
        y = (jnp.stack(seen) @ (C[..., 0] + 1j * C[..., 1]).T).real * (2 if self.conj_sym else 1)
        return y + (u * D if D.ndim == 1 else u @ D.T)


def init_S5SSM(C_init, dt_min, dt_max, conj_sym, clip_eigs):
    return partial(S5SSM, C_init=C_init, dt_min=dt_min, dt_max=dt_max, conj_sym=conj_sym, clip_eigs=clip_eigs)


class SequenceLayer(nn.Module):
    ssm: Any
    d_model_in: int
    d_model_out: int
    prenorm: bool
    batchnorm: bool

    @nn.compact
    def __call__(self, x, times, train):
        def norm(x):
            if self.batchnorm:
                return nn.BatchNorm(axis_name="batch")(x, use_running_average=not train)
            return nn.LayerNorm()(x)

        y = self.ssm(H_in=self.d_model_in, H_out=self.d_model_out, name="S5SSM_0")(
            norm(x) if self.prenorm else x, times
        )
        y = y * nn.sigmoid(nn.Dense(self.d_model_out)(nn.gelu(y)))
        x = (x if self.d_model_in == self.d_model_out else nn.Dense(self.d_model_out)(x)) + y
        return x if self.prenorm else norm(x)


class Stage(nn.Module):
    layers: Any

    @nn.compact
    def __call__(self, x, times, train):
        for i, layer in enumerate(self.layers):
            x = layer(name=f"SequenceLayer_{i}")(x, times, train)
        return x


class Encoder(nn.Module):
    num_embeddings: int
    d_model: int
    stages_of: Any

    def setup(self):
        self.encoder = nn.Embed(self.num_embeddings, self.d_model)
        self.stages = [Stage(layers) for layers in self.stages_of]

    def __call__(self, x, times, train):
        x = self.encoder(x)
        for stage in self.stages:
            x = stage(x, times, train)
        return x


class ClassificationModel(nn.Module):
    ssm: Any
    discretization: str
    num_classes: int
    d_model: int
    d_ssm: int
    ssm_block_size: int
    num_stages: int
    num_layers_per_stage: int
    num_embeddings: int = 0
    dropout: float = 0.2
    classification_mode: str = "pool"
    prenorm: bool = False
    batchnorm: bool = False
    bn_momentum: float = 0.9
    step_rescale: float = 1.0
    pooling_stride: int = 1
    pooling_every_n_layers: int = 1
    pooling_mode: str = "last"
    state_expansion_factor: int = 1

    def setup(self):
        stages, growth, into, out, states = [], self.state_expansion_factor, self.d_model, self.d_model, self.d_ssm
        for stage in range(self.num_stages):
            ssm = partial(
                self.ssm,
                P=states,
                block_size=self.ssm_block_size,
                step_rescale=self.step_rescale,
                discretization=self.discretization,
            )
            widths = [(into, out)] + [(out, out)] * (self.num_layers_per_stage - 1)
            stages.append([partial(SequenceLayer, ssm, a, b, self.prenorm, self.batchnorm) for a, b in widths])
            states, out = growth * states, growth * into
            into = growth * into if stage > 0 else into
        self.encoder = Encoder(self.num_embeddings, self.d_model, stages)
        self.decoder = nn.Dense(self.num_classes)

    def __call__(self, x, integration_timesteps, length, train=True):
        x = self.encoder(x, integration_timesteps, train)
        real = (jnp.arange(len(x)) < length)[:, None]
        return self.decoder((x * real).sum(0) / length if self.classification_mode == "pool" else x[-1])


BatchClassificationModel = nn.vmap(
    ClassificationModel,
    in_axes=(0, 0, 0, None),
    out_axes=0,
    variable_axes={"params": None, "batch_stats": None},
    split_rngs={"params": False, "dropout": True},
    axis_name="batch",
)
MODULES = {
    "event_ssm.ssm": {"init_S5SSM": init_S5SSM},
    "event_ssm.seq_model": {"BatchClassificationModel": BatchClassificationModel},
}
