"""The Kullback-Leibler divergence of two models' class probabilities: how far a reduced classifier answers from it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["kullback_leibler"]

Array = Any


def kullback_leibler(wanted: Array, got: Array) -> Array:
    """Σ p log(p/q) over the last axis, p and q the softmax of the logits `wanted` and `got`; traceable.

    Args:
        wanted, got: (..., classes) logits; one alone is that of a sigmoid.

    Returns:
        (...), in nats.
    """
    if wanted.shape[-1] == 1:  # the logit of one class against its contrary
        wanted, got = (jnp.concatenate([jnp.zeros_like(logit), logit], axis=-1) for logit in (wanted, got))
    p, q = jax.nn.log_softmax(wanted), jax.nn.log_softmax(got)
    return (jnp.exp(p) * (p - q)).sum(axis=-1)
