from __future__ import annotations

import numpy as np
import pytest

from lastcli.errors import UnsupportedModelError
from lastcli.families.lru.family import LRU
from tests.builders import lru
from tests.builders.named import Arrays, infos
from tests.families.rebuilding import config_of, forward_of, layers_of
from tests.families.test_lru import plain
from tests.upstream.deep_ssm import deep_ssm

torch = pytest.importorskip("torch")
FAMILY = LRU()


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def minimal_lru_classifier(arrays: Arrays, x: np.ndarray, *, prenorm: bool, pooling: str) -> np.ndarray:
    """One sequence (L, F) through the published classifier, float64, straight from the tensors."""
    t = {name.removeprefix("params/"): a.astype(float) for name, a in arrays.items()}

    def dense(path: str, h: np.ndarray) -> np.ndarray:
        return h @ t[f"{path}/kernel"] + t[f"{path}/bias"]

    def norm(path: str, h: np.ndarray) -> np.ndarray:
        if f"{path}/scale" not in t:
            return h
        if f"batch_stats/{path}/mean" in t:
            mean, var, eps = t[f"batch_stats/{path}/mean"], t[f"batch_stats/{path}/var"], 1e-5
        else:
            mean, var, eps = h.mean(-1, keepdims=True), h.var(-1, keepdims=True), 1e-6
        return (h - mean) / np.sqrt(var + eps) * t[f"{path}/scale"] + t[f"{path}/bias"]

    h, i = dense("encoder/encoder", x), 0
    while f"encoder/layers_{i}/seq/nu_log" in t:
        path = f"encoder/layers_{i}"
        own = {name.split("/")[-1]: a for name, a in arrays.items() if f"{path}/seq/" in name}
        y = norm(f"{path}/normalization", h) if prenorm else h
        y = gelu_tanh(plain(own, y, before=False))
        y = dense(f"{path}/out1", y) / (1 + np.exp(-dense(f"{path}/out2", y)))
        h = h + y if prenorm else norm(f"{path}/normalization", h + y)
        i += 1
    h = {"mean": h.mean(0), "last": h[-1], "none": h}[pooling]
    logits = dense("decoder", h)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize(
    ("norm", "prenorm", "pooling"),
    [("batch", True, "mean"), ("layer", False, "last"), ("layer", True, "none"), ("none", True, "mean")],
)
def test_minimal_lru(norm: str, prenorm: bool, pooling: str) -> None:
    arrays = lru.minimal_lru(np.random.default_rng(4), norm=norm)
    config = config_of(FAMILY, arrays, prenorm=prenorm, pooling=pooling)
    assert config["architecture"] == "minimal-lru"
    if norm == "none":
        arrays = {name: a for name, a in arrays.items() if "/normalization/" not in name}
        config["norm"] = norm
    x = np.random.default_rng(5).normal(size=(3, 11, 3)).astype("f4")
    outputs, inputs = forward_of(FAMILY, arrays, config, x)
    expected = [minimal_lru_classifier(arrays, sequence, prenorm=prenorm, pooling=pooling) for sequence in x]
    np.testing.assert_allclose(outputs, np.stack(expected), atol=2e-5)
    assert [u.shape for u in inputs] == [(3, 11, 5)] * 2


def test_the_step_of_a_train_state_is_no_part_of_the_model() -> None:
    arrays = lru.minimal_lru(np.random.default_rng(4), norm="batch")
    counted = {"step": np.int32(7).reshape(()), **arrays}
    config = config_of(FAMILY, counted)
    assert config["architecture"] == "minimal-lru"
    x = np.random.default_rng(5).normal(size=(3, 11, 3)).astype("f4")
    np.testing.assert_array_equal(forward_of(FAMILY, counted, config, x)[0], forward_of(FAMILY, arrays, config, x)[0])
    unknown = {"temperature": np.float32(7).reshape(()), **arrays}
    assert config_of(FAMILY, unknown)["architecture"] == "none"


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_minimal_lru_pools_over_padding_too(pooling: str) -> None:
    arrays = lru.minimal_lru(np.random.default_rng(4), norm="layer")
    config = config_of(FAMILY, arrays, pooling=pooling)
    x = np.random.default_rng(5).normal(size=(2, 9, 3)).astype("f4")
    padded, _ = forward_of(FAMILY, arrays, config, x, np.array([6, 9]))
    expected = [minimal_lru_classifier(arrays, sequence, prenorm=True, pooling=pooling) for sequence in x]
    np.testing.assert_allclose(padded, np.stack(expected), atol=2e-5)


def test_several_outputs_a_step_have_classes_of_their_own() -> None:
    arrays = lru.minimal_lru(np.random.default_rng(4), norm="layer", classes=6)
    config = config_of(FAMILY, arrays, pooling="none", multidim=2)
    x = np.random.default_rng(5).normal(size=(2, 9, 3)).astype("f4")
    outputs, _ = forward_of(FAMILY, arrays, config, x)
    assert outputs.shape == (2, 9, 3, 2)
    for sequence, output in zip(x, outputs):
        joint = minimal_lru_classifier(arrays, sequence, prenorm=True, pooling="none").reshape(9, 3, 2)
        expected = joint - np.log(np.exp(joint).sum(-1, keepdims=True))
        np.testing.assert_allclose(output, expected, atol=2e-5)


@pytest.mark.parametrize(("pooling", "multidim"), [("mean", 2), ("none", 4)])
def test_several_outputs_need_a_head_at_every_step_that_they_divide(pooling: str, multidim: int) -> None:
    arrays = lru.minimal_lru(np.random.default_rng(4), classes=6)
    config = config_of(FAMILY, arrays, pooling=pooling, multidim=multidim)
    with pytest.raises(UnsupportedModelError, match=f"multidim is {multidim}"):
        FAMILY.forward(infos(arrays), config, layers_of(FAMILY, arrays, config))


def test_a_batch_norm_is_refused_where_the_model_has_none() -> None:
    arrays = lru.torch_model(np.random.default_rng(4))
    config = config_of(FAMILY, arrays, norm="batch")
    with pytest.raises(UnsupportedModelError, match="norm is batch, but deep-ssm has no batch normalisation"):
        FAMILY.forward(infos(arrays), config, layers_of(FAMILY, arrays, config))


def test_dots_between_the_parts_are_the_same_model() -> None:
    arrays = lru.minimal_lru(np.random.default_rng(4))
    x = np.random.default_rng(5).normal(size=(2, 7, 3)).astype("f4")
    dotted = {name.replace("/", "."): a for name, a in arrays.items()}
    slashes, _ = forward_of(FAMILY, arrays, config_of(FAMILY, arrays), x)
    dots, _ = forward_of(FAMILY, dotted, config_of(FAMILY, dotted), x)
    np.testing.assert_array_equal(slashes, dots)


class Block(torch.nn.Module):
    def __init__(self, arrays: Arrays, i: int, before: bool, norm: bool, ff: str):
        super().__init__()
        prefix = f"blocks.{i}."
        self.arrays = {name.split(".")[-1]: a for name, a in arrays.items() if name.startswith(f"{prefix}lru.")}
        self.before, self.norm, self.ff = before, norm, ff
        for name, array in arrays.items():
            if name.startswith(prefix) and ".lru." not in name:
                self.register_buffer(name.removeprefix(prefix).replace(".", "_"), torch.tensor(array))

    def feed(self, z):
        functional = torch.nn.functional
        if self.ff == "GLU":
            z = functional.linear(functional.gelu(z), self.ff_output_linear_0_weight, self.ff_output_linear_0_bias)
            return functional.glu(z, dim=-1)
        z = functional.gelu(functional.linear(z, self.ff_c_fc_weight, getattr(self, "ff_c_fc_bias", None)))
        return functional.linear(z, self.ff_c_proj_weight, getattr(self, "ff_c_proj_bias", None))

    def forward(self, x):
        z = x
        if self.norm:
            z = torch.nn.functional.layer_norm(z, z.shape[-1:], self.ln_weight, self.ln_bias)
        y = np.stack([plain(self.arrays, sequence.double().numpy(), self.before) for sequence in z])
        return x + self.feed(torch.tensor(y, dtype=x.dtype))


@pytest.mark.parametrize(("name", "ff"), [("deep-ssm", "GLU"), ("deep-ssm", "MLP"), ("dlru", "GLU"), ("dlru", "MLP")])
def test_torch_models(name: str, ff: str) -> None:
    dlru = name == "dlru"
    arrays = lru.torch_model(np.random.default_rng(6), ff=ff, bias=dlru)
    config = config_of(FAMILY, arrays)
    assert config["architecture"] == name
    x = np.random.default_rng(7).normal(size=(2, 12, 2)).astype("f4")
    h = torch.nn.functional.linear(
        torch.tensor(x), torch.tensor(arrays["encoder.weight"]), torch.tensor(arrays["encoder.bias"]) if dlru else None
    )
    for i in range(2):
        h = Block(arrays, i, before=not dlru, norm=dlru, ff=ff)(h)
    bias = torch.tensor(arrays["decoder.bias"]) if dlru else None
    expected = torch.nn.functional.linear(h, torch.tensor(arrays["decoder.weight"]), bias)
    outputs, inputs = forward_of(FAMILY, arrays, config, x)
    np.testing.assert_allclose(outputs, expected, atol=5e-5)
    assert [u.shape for u in inputs] == [(2, 12, 4)] * 2


@pytest.mark.parametrize(("gates", "each"), [(1, False), (2, False), (2, True)])
@pytest.mark.parametrize("ff", ["GLU", "net", "LGLU", "LGLU2", "LMLP"])
def test_a_later_deep_ssm_has_gates_and_no_norms(gates: int, each: bool, ff: str) -> None:
    arrays = lru.torch_model(np.random.default_rng(6), ff=ff, gates=gates, each=each)
    config = config_of(FAMILY, arrays)
    assert config["architecture"] == "deep-ssm"
    x = np.random.default_rng(7).normal(size=(2, 12, 2)).astype("f4")
    outputs, inputs = forward_of(FAMILY, arrays, config, x)
    expected = [deep_ssm(arrays, sequence.astype(float)) for sequence in x]
    np.testing.assert_allclose(outputs, expected, atol=2e-5 * np.abs(expected).max())
    assert [u.shape for u in inputs] == [(2, 12, 4)] * 2


def test_the_bound_of_sandwich_layers_is_an_option_of_their_models_only() -> None:
    arrays = lru.torch_model(np.random.default_rng(6), ff="LMLP")
    config = config_of(FAMILY, arrays, lip=0.7)
    x = np.random.default_rng(7).normal(size=(1, 12, 2)).astype("f4")
    outputs, _ = forward_of(FAMILY, arrays, config, x)
    np.testing.assert_allclose(outputs[0], deep_ssm(arrays, x[0].astype(float), lip=0.7), atol=2e-5)
    assert "lip" not in FAMILY.idle(infos(arrays))
    assert "lip" in FAMILY.idle(infos(lru.torch_model(np.random.default_rng(6), ff="net", gates=2)))


@pytest.mark.parametrize(
    ("gone", "added"),
    [("blocks.1.ff_res_logit", None), (None, "blocks.0.ff.net.5.weight"), (None, "blocks.1.ff.model.4.weight")],
)
def test_gates_or_maps_of_another_kind_are_another_model(gone: str | None, added: str | None) -> None:
    arrays = lru.torch_model(np.random.default_rng(6), ff="net", gates=2)
    arrays = {name: a for name, a in arrays.items() if name != gone} | (
        {added: np.zeros((4, 4), "f4")} if added else {}
    )
    assert config_of(FAMILY, arrays)["architecture"] == "none"


def test_what_the_forward_says_about_itself() -> None:
    arrays = lru.torch_model(np.random.default_rng(6))
    config = config_of(FAMILY, arrays)
    forward = FAMILY.forward(infos(arrays), config, layers_of(FAMILY, arrays, config))
    assert forward is not None
    assert (forward.features, forward.outputs, forward.task, forward.sequence) == (2, 3, "regression", True)
    assert not any(".lru." in name or ".ln." in name for name in forward.params)


@pytest.mark.parametrize(
    "stranger", ["blocks.0.alpha", "blocks.0.ff.gate.weight", "head.weight", "blocks.0.lru.x0_param"]
)
def test_an_unknown_tensor_means_an_unknown_model(stranger: str) -> None:
    arrays = lru.torch_model(np.random.default_rng(6))
    arrays[stranger] = np.zeros((1, 6), "c8")
    config = config_of(FAMILY, arrays)
    assert config["architecture"] == "none"
    assert FAMILY.forward(infos(arrays), config, layers_of(FAMILY, arrays, config)) is None


def test_a_norm_that_is_not_there_is_refused() -> None:
    arrays = lru.minimal_lru(np.random.default_rng(4), norm="layer")
    config = config_of(FAMILY, arrays, norm="batch")
    with pytest.raises(UnsupportedModelError, match="norm batch, but the checkpoint has no batch_stats"):
        FAMILY.forward(infos(arrays), config, layers_of(FAMILY, arrays, config))
