"""The models of fairseq and transformers around Mega's layer against their definitions, one test an option."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lastcli.families.mega.family import Mega
from tests.builders.named import Arrays
from tests.families.rebuilding import config_of, forward_of
from tests.upstream import mega

FAMILY = Mega()
TOKENS = np.random.default_rng(1).integers(2, 9, (2, 8))
# what a definition calls an option otherwise than the family does
RENAMED = {"classifier_activation": "classifier", "chunk_size": "chunk"}

# name → (how the model is built, what the description says beside the tensors)
FAIRSEQ: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one way": ({"both": False}, {}),
    "both ways": ({"both": True}, {}),
    "norm after": ({"prenorm": False}, {}),
    **{kind: ({"kind": kind}, {}) for kind in ("layernorm", "scalenorm", "rmsnorm", "batchnorm")},
    "norm of the embedding": ({"embed_norm": True}, {}),
    "rotary bias": ({"bias": "rotary"}, {}),
    "no feed-forward network": ({"feed": False}, {}),
    "two layers": ({"count": 2}, {}),
    "no classifier": ({"depth": 0}, {}),
    "two classifiers": ({"depth": 2}, {}),
    **{f"attention {kind}": ({}, {"attention": kind}) for kind in ("softmax", "relu2", "laplace")},
    **{f"activation {kind}": ({}, {"activation": kind}) for kind in ("relu", "gelu", "gelu_accurate", "linear")},
    "activation of the classifier": ({}, {"classifier_activation": "relu"}),
    "pooling of the first step": ({}, {"pooling": "first"}),
    "chunks": ({"reach": 4}, {"chunk_size": 4}),
    "truncation": ({}, {"truncation": 4}),
    "gain of alpha": ({}, {"gain": "alpha"}),
    "shift": ({}, {"shift": True}),
}
TRANSFORMERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "head of the first step": ({"head": "classification"}, {}),
    "head of every step": ({"head": "tokens"}, {}),
    "masked words": ({"head": "masked"}, {}),
    "no head": ({"head": "none"}, {}),
    "types of tokens": ({"types": True}, {}),
    "norm after": ({}, {"prenorm": False, "ffn_prenorm": False}),
    "norm after the network alone": ({}, {"ffn_prenorm": False}),
    "norm without weights": ({"kind": "none"}, {"norm": "layernorm"}),
    "rmsnorm multiplies": ({"kind": "rmsnorm"}, {}),
    "chunks of a table": ({"bias": "simple", "head": "none"}, {"attention": "laplace", "chunk_size": 4}),
    "truncation": ({"head": "none"}, {"truncation": 3}),
    "one way": ({"head": "tokens", "both": False}, {}),
}


def agrees(arrays: Arrays, model: mega.Reference, options: dict[str, Any]) -> None:
    outputs, _ = forward_of(FAMILY, arrays, config_of(FAMILY, arrays, **options), TOKENS)
    np.testing.assert_allclose(outputs, np.stack([model(x) for x in TOKENS]), atol=2e-5, rtol=1e-4)


def defined(arrays: Arrays, options: dict[str, Any], **more: Any) -> mega.Reference:
    return mega.Reference(arrays, **{RENAMED.get(key, key): value for key, value in options.items()}, **more)


@pytest.mark.parametrize("name", FAIRSEQ)
def test_a_classifier_of_fairseq(name: str) -> None:
    build, options = FAIRSEQ[name]
    arrays = mega.fairseq(**build)
    agrees(arrays, defined(arrays, options, prenorm=build.get("prenorm", True)), options)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_an_encoder_of_transformers(name: str) -> None:
    build, options = TRANSFORMERS[name]
    arrays = mega.transformers(**build)
    agrees(arrays, defined(arrays, options), options)
