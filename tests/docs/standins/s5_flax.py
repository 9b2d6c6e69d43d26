"""`s5` of lindermanlab/S5: the state space, its initialiser's arguments, and the classifier around it."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn


def make_DPLR_HiPPO(N):
    """Poles and eigenvectors to start from; what they are makes no difference to a file that is loaded."""
    return np.linspace(-1, -0.2, N) + 1j * np.arange(N), None, None, np.eye(N) + 0j, None


class S5SSM(nn.Module):
    Lambda_re_init: Any
    Lambda_im_init: Any
    V: Any
    Vinv: Any
    H: int
    P: int
    C_init: str
    discretization: str
    dt_min: float
    dt_max: float
    conj_sym: bool = True
    clip_eigs: bool = False
    bidirectional: bool = False
    step_rescale: float = 1.0

    @nn.compact
    def __call__(self, u):
        P = len(self.Lambda_re_init)
        assert P == self.P
        assert self.Vinv.shape == (P, (2 if self.conj_sym else 1) * P)
        real = self.param("Lambda_re", lambda _: jnp.asarray(self.Lambda_re_init, jnp.float32))
        imag = self.param("Lambda_im", lambda _: jnp.asarray(self.Lambda_im_init, jnp.float32))
        normal = nn.initializers.normal(0.5)
        B = self.param("B", normal, (P, self.H, 2))
        if self.bidirectional and self.C_init == "complex_normal":
            C = self.param("C", normal, (self.H, 2 * P, 2))
        elif self.bidirectional:
            C = jnp.concatenate([self.param(name, normal, (self.H, P, 2)) for name in ("C1", "C2")], 1)
        else:
            C = self.param("C", normal, (self.H, P, 2))
        D = self.param("D", normal, (self.H,))
        log_step = self.param(
            "log_step", lambda key, shape: jax.random.uniform(key, shape, minval=-3, maxval=-1), (P, 1)
        )
        B, C = B[..., 0] + 1j * B[..., 1], C[..., 0] + 1j * C[..., 1]
        a = jnp.minimum(real, -1e-4 if self.clip_eigs else jnp.inf) + 1j * imag
        step = self.step_rescale * jnp.exp(log_step[:, 0])
        if self.discretization == "zoh":
            pole, gain = jnp.exp(a * step), (jnp.exp(a * step) - 1) / a
        else:
            pole, gain = (1 + a * step / 2) / (1 - a * step / 2), step / (1 - a * step / 2)

        def scan(drive):
            def advance(x, push):
                x = pole * x + push
                return x, x

            return jax.lax.scan(advance, jnp.zeros(P, complex), drive)[1]

        drive = u @ (gain[:, None] * B).T
        x = scan(drive)
        if self.bidirectional:
            x = jnp.concatenate([x, scan(drive[::-1])[::-1]], 1)
        return (2 if self.conj_sym else 1) * (x @ C.T).real + D * u


def init_S5SSM(
    H,
    P,
    Lambda_re_init,
    Lambda_im_init,
    V,
    Vinv,
    C_init,
    discretization,
    dt_min,
    dt_max,
    conj_sym,
    clip_eigs,
    bidirectional,
):
    return partial(S5SSM, **locals())


class SequenceLayer(nn.Module):
    ssm: Any
    d_model: int
    activation: str
    prenorm: bool
    batchnorm: bool
    training: bool
    step_rescale: float

    def setup(self):
        self.seq = self.ssm(step_rescale=self.step_rescale)
        if self.activation == "full_glu":
            self.out1 = nn.Dense(self.d_model)
        if self.activation != "gelu":
            self.out2 = nn.Dense(self.d_model)
        if self.batchnorm:
            self.norm = nn.BatchNorm(use_running_average=not self.training, axis_name="batch")
        else:
            self.norm = nn.LayerNorm()

    def __call__(self, x):
        y = self.seq(self.norm(x) if self.prenorm else x)
        gelu = nn.gelu(y)
        if self.activation == "gelu":
            y = gelu
        else:
            value = {"full_glu": lambda: self.out1(gelu), "half_glu1": lambda: gelu, "half_glu2": lambda: y}
            y = value[self.activation]() * nn.sigmoid(self.out2(gelu))
        return x + y if self.prenorm else self.norm(x + y)


class Encoder(nn.Module):
    layer: Any
    d_model: int
    n_layers: int

    def setup(self):
        self.encoder = nn.Dense(self.d_model)
        self.layers = [self.layer() for _ in range(self.n_layers)]

    def __call__(self, x):
        x = self.encoder(x)
        for layer in self.layers:
            x = layer(x)
        return x


class ClassificationModel(nn.Module):
    ssm: Any
    d_output: int
    d_model: int
    n_layers: int
    padded: bool
    activation: str = "gelu"
    dropout: float = 0.2
    training: bool = True
    mode: str = "pool"
    prenorm: bool = False
    batchnorm: bool = False
    bn_momentum: float = 0.9
    step_rescale: float = 1.0

    def setup(self):
        names = ("ssm", "d_model", "activation", "prenorm", "batchnorm", "training", "step_rescale")
        layer = partial(SequenceLayer, **{name: getattr(self, name) for name in names})
        self.encoder = Encoder(layer, self.d_model, self.n_layers)
        self.decoder = nn.Dense(self.d_output)

    def __call__(self, x, integration_timesteps):
        x = self.encoder(x)
        return nn.log_softmax(self.decoder(x.mean(0) if self.mode == "pool" else x[-1]))


BatchClassificationModel = nn.vmap(
    ClassificationModel,
    in_axes=(0, 0),
    out_axes=0,
    variable_axes={"params": None, "batch_stats": None},
    split_rngs={"params": False, "dropout": True},
    axis_name="batch",
)
MODULES = {
    "s5.ssm": {"init_S5SSM": init_S5SSM},
    "s5.ssm_init": {"make_DPLR_HiPPO": make_DPLR_HiPPO},
    "s5.seq_model": {"BatchClassificationModel": BatchClassificationModel},
}
