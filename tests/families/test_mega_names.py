from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Forward
from lastcli.families.mega.family import Mega
from tests.builders.named import Arrays, infos
from tests.families.rebuilding import config_of, layers_of
from tests.upstream import mega as reference

FAMILY = Mega()


def described(arrays: Arrays, **changes: Any) -> Forward | None:
    config = config_of(FAMILY, arrays, **changes)
    return FAMILY.forward(infos(arrays), config, layers_of(FAMILY, arrays, config))


def test_what_the_tensors_show() -> None:
    post = reference.fairseq(prenorm=False, kind="scalenorm", classes=1)
    both = {"bidirectional": True}
    shown = {"norm": "scalenorm", "prenorm": False, "ffn_prenorm": False, "task": "regression", **both}
    assert FAMILY.infer(infos(post)) == shown
    assert FAMILY.infer(infos(reference.fairseq(kind="batchnorm"))) == {
        "norm": "batchnorm",
        "prenorm": True,
        "ffn_prenorm": True,
        **both,
    }
    assert FAMILY.infer(infos(reference.transformers(kind="none"))) == {"pooling": "first", **both}
    bare = FAMILY.infer(infos(reference.transformers(head="none", both=False)))
    assert bare == {"norm": "scalenorm", "task": "regression", "bidirectional": False}


def test_what_the_forward_says_about_itself() -> None:
    text, image = described(reference.fairseq(kind="batchnorm")), described(reference.fairseq(vocabulary=0))
    filler, bare = (described(reference.transformers(head=head)) for head in ("masked", "none"))
    assert text is not None
    assert image is not None
    assert filler is not None
    assert bare is not None
    assert (text.features, text.outputs, text.task, text.layout) == (9, 3, "classification", "single")
    assert not text.sequence
    assert image.features == 1
    assert (filler.outputs, filler.sequence) == (9, True)
    assert (bare.outputs, bare.sequence, bare.task) == (4, True, "regression")
    assert not any(".move." in name or "num_batches" in name for name in text.params)
    assert not any("_float_tensor" in name or "pooler" in name for name in bare.params)


@pytest.mark.parametrize("prefix", ["encoder.encoder.", "encoder.", ""])
def test_prefixes_do_not_matter(prefix: str) -> None:
    wanted, got = described(reference.fairseq()), described(reference.fairseq(prefix=prefix))
    whole = described({f"model.{name}": a for name, a in reference.fairseq(prefix=prefix).items()})
    assert wanted is not None
    for forward, start in ((got, prefix), (whole, f"model.{prefix}")):
        assert forward is not None
        names = [name.removeprefix(start).removeprefix("model.") for name in forward.params]
        assert sorted(names) == sorted(name.removeprefix("encoder.encoder.") for name in wanted.params)


STRANGERS = [
    "encoder.encoder.layers.0.cross_attn.k_proj.weight",
    "encoder.encoder.layers.1.mega_layer.qk_weight",
    "encoder.encoder.layers.0.mega_layer.norm.norm.offset",
    "encoder.encoder.embed_positions.weight",
    "lm_head.weight",
]


@pytest.mark.parametrize("stranger", STRANGERS)
def test_an_unknown_tensor_means_an_unknown_model(stranger: str) -> None:
    arrays = reference.fairseq(count=2) | {stranger: np.zeros((2, 6), "f4")}
    assert described(arrays) is None
    assert FAMILY.infer(infos(arrays)) == {"bidirectional": True}


@pytest.mark.parametrize(
    "gone",
    [
        "encoder.encoder.layers.1.mega_layer.beta",
        "encoder.encoder.layers.1.nffn.fc2.bias",
        "encoder.encoder.layers.0.mega_layer.norm.norm.weight",
        "encoder.encoder.embed_tokens.embed.weight",
        "classifier.0.0.bias",
        "sentence_projection_layer.weight",
    ],
)
def test_a_missing_tensor_means_an_unknown_model(gone: str) -> None:
    arrays = reference.fairseq(count=2)
    del arrays[gone]
    assert described(arrays) is None


def test_layers_of_two_kinds_mean_an_unknown_model() -> None:
    arrays, other = reference.fairseq(count=2), reference.fairseq(count=2, bias="rotary")
    bare = {name: a for name, a in arrays.items() if "layers.1.nffn" not in name}
    mixed = {name: a for name, a in arrays.items() if "layers.1.mega_layer.rel_pos" not in name}
    mixed |= {name: a for name, a in other.items() if "layers.1.mega_layer.rel_pos" in name}
    assert described(arrays) is not None
    assert described(bare) is None
    assert described(mixed) is None


ROOT = "encoder.encoder."
STRANGE = [
    {name.replace("layers.1.", "layers.2."): a for name, a in reference.fairseq(count=2).items()},
    reference.fairseq() | {f"{ROOT}embed_tokens.embed.weight": np.zeros((9, 4, 1), "f4")},
    reference.fairseq(kind="rmsnorm") | {f"{ROOT}final_norm.norm.bias": np.zeros(4, "f4")},
    reference.fairseq() | {"classifier.0.0.weight": np.zeros((7, 12), "f4")},
]


@pytest.mark.parametrize("arrays", STRANGE, ids=["layers left out", "axes", "norms of two kinds", "a triple of inputs"])
def test_what_no_published_model_has_means_an_unknown_model(arrays: Arrays) -> None:
    assert described(arrays) is None


def test_models_that_look_alike_are_not_taken_for_encoders() -> None:
    one_way = reference.transformers(head="none", both=False)
    assert described(one_way) is None  # as likely a decoder
    assert described(one_way, causal="false") is not None
    assert described(reference.transformers(), causal="true") is None
    causal = {name.replace("mlm_head", "lm_head"): a for name, a in reference.transformers(head="masked").items()}
    assert described(causal) is None
    choice = reference.transformers(head="tokens") | {"mega.pooler.dense.weight": np.zeros((4, 4), "f4")}
    assert described(choice) is None
    swapped = {name.replace("qk_bias", "beta"): a for name, a in reference.transformers().items()}
    assert described(swapped) is None
    flat = reference.fairseq()
    flat["encoder.encoder.layers.0.mega_layer.h_proj.weight"] = np.zeros(20, "f4")
    assert described(flat) is None


@pytest.mark.parametrize(
    ("name", "shape"),
    [("mega_layer.v_proj.weight", (5, 3)), ("nffn.fc2.weight", (4, 6)), ("mega_layer.gamma", (2, 5))],
)
def test_shapes_that_contradict_each_other_are_refused(name: str, shape: tuple[int, ...]) -> None:
    arrays = reference.fairseq(count=2)
    arrays[f"encoder.encoder.layers.1.{name}"] = np.zeros(shape, "f4")
    with pytest.raises(UnsupportedModelError, match=f"{name} has shape"):
        described(arrays)


def test_a_batch_norm_without_statistics_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="no running means"):
        described(reference.transformers(kind="none"), norm="batchnorm")


def test_options_of_what_the_model_has_not_are_idle() -> None:
    assert FAMILY.idle(infos(reference.fairseq())) == frozenset()
    assert FAMILY.idle(infos(reference.fairseq(depth=0))) == {"classifier_activation"}
    assert FAMILY.idle(infos(reference.fairseq(feed=False))) == {"ffn_prenorm"}
    assert FAMILY.idle(infos(reference.fairseq(vocabulary=0))) == {"padding_idx"}
    heads = {"padding_idx", "classifier_activation", "pooling"}
    assert FAMILY.idle(infos(reference.transformers(head="masked"))) == heads
    unknown = reference.fairseq() | {"encoder.encoder.embed_positions.weight": np.zeros((8, 4), "f4")}
    keys = {option.key for option in FAMILY.options}
    assert FAMILY.idle(infos(unknown)) == keys - {"gain", "bidirectional"}
