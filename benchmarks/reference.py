"""What the published pruning code computes in a sweep, written from the equations of S5 (arXiv 2208.04933) and LAST.

A plain flax model: every layer discretises its poles (zero-order hold, eq. 6), runs x_k = λ̄ ∘ x_{k-1} + B̄ u_k as an
associative scan (section 2.2 and appendix H), reads y_k = 2 Re(C x_k) + D u_k, and the whole is vmapped over the
examples. A pruned model is the model of full size with some states masked: the mask multiplies the states before they
are read. One compiled program serves all masks of a sweep; one pass a ratio.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

__all__ = ["ReferenceS5", "masked_pass"]


class _Layer(nn.Module):
    features: int
    states: int
    bidirectional: bool

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """One sequence (L, H) and the mask (P,) of the states that stay."""
        skip = x
        x = nn.BatchNorm(use_running_average=True, name="norm")(x)
        x = self._scan(x, mask)
        g = nn.gelu(x)
        return skip + g * nn.sigmoid(nn.Dense(self.features, name="out2")(g))

    def _scan(self, u: jax.Array, mask: jax.Array) -> jax.Array:
        log_step = self.param("log_step", nn.initializers.constant(-4.0), (self.states, 1))
        real = self.param("Lambda_re", nn.initializers.constant(-0.5), (self.states,))
        imag = self.param("Lambda_im", nn.initializers.normal(10.0), (self.states,))
        b = self.param("B", nn.initializers.normal(self.features**-0.5), (self.states, self.features, 2))
        names = ("C1", "C2") if self.bidirectional else ("C",)
        shape = (self.features, self.states, 2)
        read = [self.param(name, nn.initializers.normal(self.states**-0.5), shape) for name in names]
        d = self.param("D", nn.initializers.normal(1.0), (self.features,))

        a = real + 1j * imag
        poles = jnp.exp(a * jnp.exp(log_step[:, 0]))
        drive = ((poles - 1) / a)[:, None] * (b[..., 0] + 1j * b[..., 1])
        driven = u.astype(jnp.complex64) @ drive.T
        decays = jnp.broadcast_to(poles, driven.shape)
        y = d * u
        for c, reverse in zip(read, (False, True)):
            states = jax.lax.associative_scan(_compose, (decays, driven), reverse=reverse)[1]
            y = y + 2 * ((states * mask) @ (c[..., 0] + 1j * c[..., 1]).T).real
        return y


def _compose(first: tuple[Any, Any], second: tuple[Any, Any]) -> tuple[Any, Any]:
    """(λ₁, x₁) then (λ₂, x₂): x ↦ λ₂ (λ₁ x + x₁) + x₂."""
    return second[0] * first[0], second[0] * first[1] + second[1]


class _Encoder(nn.Module):
    layers: int
    features: int
    states: int
    bidirectional: bool

    @nn.compact
    def __call__(self, x: jax.Array, masks: jax.Array) -> jax.Array:
        """One sequence (L, F) and the masks (layers, P)."""
        x = nn.Dense(self.features, name="encoder")(x)
        for i in range(self.layers):
            x = _Layer(self.features, self.states, self.bidirectional, name=f"layers_{i}")(x, masks[i])
        return x


class ReferenceS5(nn.Module):
    """The classifier for one sequence; its parameters have the names of the published code.

    Attributes:
        layers, features, states: of the model; stored states, one of each conjugate pair.
        classes: outputs.
        bidirectional: whether a second read-out runs backwards.
    """

    layers: int
    features: int
    states: int
    classes: int
    bidirectional: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, masks: jax.Array) -> jax.Array:
        """Log-probabilities (classes,) of one sequence (L, F) under the masks (layers, P)."""
        x = _Encoder(self.layers, self.features, self.states, self.bidirectional, name="encoder")(x, masks)
        return nn.log_softmax(nn.Dense(self.classes, name="decoder")(x.mean(axis=0)))


def masked_pass(model: ReferenceS5) -> Any:
    """A compiled `(variables, masks, x (n, L, F), y (n,)) -> correct answers`."""

    def count(variables: Any, masks: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        outputs = jax.vmap(lambda one: model.apply(variables, one, masks))(x)
        return (outputs.argmax(axis=-1) == y).sum()

    return jax.jit(count)
