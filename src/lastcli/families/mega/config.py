"""`config.json` of transformers' Mega (4.41, `MegaConfig`): read as options, and written for fewer states.

`is_decoder` makes the attention causal, which is not built in here; `use_chunking` switches `chunk_size` on. A key that
is missing has the default of `MegaConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["options_of", "with_states"]

_ACTIVATIONS = {"swish": "silu", "gelu_new": "gelu_accurate", "gelu_pytorch_tanh": "gelu_accurate"}
_NORMS = {"syncbatchnorm": "batchnorm"}


def options_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """What it says, in the options of the family."""
    norm, activation = document.get("normalization_type", "scalenorm"), document.get("activation", "silu")
    truncation = document.get("truncation")
    return {
        "gain": "delta",
        "bidirectional": document.get("bidirectional", True),
        "causal": str(document.get("is_decoder", False)).lower(),
        "norm": _NORMS.get(norm, norm),
        "prenorm": document.get("normalize_before_mega", True),
        "ffn_prenorm": document.get("normalize_before_ffn", True),
        "activation": _ACTIVATIONS.get(activation, activation),
        "attention": document.get("attention_activation", "softmax"),
        "chunk_size": document.get("chunk_size", -1) if document.get("use_chunking", False) else -1,
        "truncation": 0 if truncation is None else truncation,
    }


def with_states(document: Mapping[str, Any], states: Sequence[int]) -> dict[str, Any]:
    """The same for layers of so many states in a row; it holds one number, the largest, for all of them."""
    return {**document, "ema_projection_size": max(states)}
