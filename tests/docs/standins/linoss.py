"""`models.LinOSS` of tk-rusch/linoss, in equinox."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp


class LinOSSLayer(eqx.Module):
    A_diag: jax.Array
    B: jax.Array
    C: jax.Array
    D: jax.Array
    steps: jax.Array
    discretization: str

    def __init__(self, ssm_size, H, discretization, *, key):
        keys = jax.random.split(key, 5)
        self.A_diag = jax.random.uniform(keys[0], (ssm_size,))
        self.B = jax.random.uniform(keys[1], (ssm_size, H, 2), minval=-1)
        self.C = jax.random.uniform(keys[2], (H, ssm_size, 2), minval=-1)
        self.D = jax.random.normal(keys[3], (H,))
        self.steps = jax.random.uniform(keys[4], (ssm_size,))
        self.discretization = discretization

    def __call__(self, u):
        A, step = jax.nn.relu(self.A_diag), jax.nn.sigmoid(self.steps)
        z = x = jnp.zeros(A.shape, complex)
        y = []
        for push in u @ (self.B[..., 0] + 1j * self.B[..., 1]).T:
            force = push - A * x
            z = z + step * force if self.discretization == "IMEX" else (z + step * force) / (1 + step**2 * A)
            x = x + step * z
            y.append(x)
        return (jnp.stack(y) @ (self.C[..., 0] + 1j * self.C[..., 1]).T).real + self.D * u


class GLU(eqx.Module):
    w1: eqx.nn.Linear
    w2: eqx.nn.Linear

    def __init__(self, width, key):
        self.w1, self.w2 = (eqx.nn.Linear(width, width, key=k) for k in jax.random.split(key))

    def __call__(self, x):
        return self.w1(x) * jax.nn.sigmoid(self.w2(x))


class LinOSSBlock(eqx.Module):
    norm: eqx.nn.BatchNorm
    ssm: LinOSSLayer
    glu: GLU

    def __init__(self, ssm_size, H, discretization, key):
        self.norm = eqx.nn.BatchNorm(H, "batch", channelwise_affine=False)
        self.ssm, self.glu = LinOSSLayer(ssm_size, H, discretization, key=key), GLU(H, key)

    def __call__(self, x, state):
        y, state = self.norm(x.T, state)
        return x + jax.vmap(self.glu)(jax.nn.gelu(self.ssm(y.T))), state


class LinOSS(eqx.Module):
    linear_encoder: eqx.nn.Linear
    blocks: list[LinOSSBlock]
    linear_layer: eqx.nn.Linear

    def __init__(self, num_blocks, N, ssm_size, H, output_dim, classification, output_step, discretization, *, key):
        first, last, *keys = jax.random.split(key, num_blocks + 2)
        assert classification
        assert output_step == 1
        self.linear_encoder = eqx.nn.Linear(N, H, key=first)
        self.blocks = [LinOSSBlock(ssm_size, H, discretization, k) for k in keys]
        self.linear_layer = eqx.nn.Linear(H, output_dim, key=last)

    def __call__(self, x, state, key):
        x = jax.vmap(self.linear_encoder)(x)
        for block in self.blocks:
            x, state = block(x, state)
        return jax.nn.softmax(self.linear_layer(x.mean(0))), state


MODULES = {"models.LinOSS": {"LinOSS": LinOSS, "LinOSSLayer": LinOSSLayer}}
