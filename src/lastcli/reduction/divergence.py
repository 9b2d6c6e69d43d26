"""The Kullback-Leibler divergence of two models' class probabilities: how far a reduced classifier answers from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["divergence_of", "kullback_leibler", "of_labels"]

Array = Any


def divergence_of(task: str) -> Callable[[Array, Array], Array] | None:
    """How far the outputs `got` answer from `wanted`, by a model's task; None where outputs are no probabilities."""
    return {"classification": kullback_leibler, "multilabel": of_labels}.get(task)


def of_labels(wanted: Array, got: Array) -> Array:
    """The sum over independent labels, each the logit of a sigmoid: (..., k) → (...)."""
    return kullback_leibler(wanted[..., None], got[..., None]).sum(axis=-1)


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
