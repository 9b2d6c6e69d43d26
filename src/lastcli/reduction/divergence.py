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
        wanted, got: (..., classes) logits.

    Returns:
        (...), in nats.
    """
    p, q = jax.nn.log_softmax(wanted), jax.nn.log_softmax(got)
    return (jnp.exp(p) * (p - q)).sum(axis=-1)
