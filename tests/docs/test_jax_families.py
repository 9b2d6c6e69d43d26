"""The pages of the JAX families: as `test_torch_families`, with flax trees of the same shapes and equinox modules."""

from __future__ import annotations

import copy
import functools
import importlib
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import traverse_util
from flax.serialization import msgpack_serialize

from tests.docs.blocks import follow
from tests.docs.outputs import alive, describe, kept, outputs, same
from tests.docs.upstream import install


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def initialised(model, *inputs) -> dict:
    """Its variables, every leaf of a norm moved off its initial value."""
    rng = np.random.default_rng(0)
    keys = {"params": jax.random.PRNGKey(0), "dropout": jax.random.PRNGKey(1)}
    flat = traverse_util.flatten_dict(jax.device_get(dict(model.init(keys, *inputs))))
    for path, value in flat.items():
        flat[path] = np.asarray(value)
        if any("norm" in part.lower() for part in path):
            flat[path] = np.float32(value + rng.uniform(0.1, 0.5, np.shape(value)))
    return traverse_util.unflatten_dict(flat)


def save(path: str, state: dict) -> None:
    Path(path).write_bytes(msgpack_serialize(state))


def fits(model, variables, *inputs) -> None:
    """The file's tree is what the model of the new size initialises, leaf for leaf."""
    keys = {"params": jax.random.PRNGKey(0), "dropout": jax.random.PRNGKey(1)}
    wanted = traverse_util.flatten_dict(dict(jax.eval_shape(lambda keys: model.init(keys, *inputs), keys)))
    found = traverse_util.flatten_dict(variables)
    assert {path: leaf.shape for path, leaf in found.items()} == {path: leaf.shape for path, leaf in wanted.items()}


def silenced(state: dict, small: str, reads: dict[str, int]) -> dict:
    """The whole model's variables with the read-outs of dropped states at zero; `reads`: name → state axis."""
    state = copy.deepcopy(state)
    flat = traverse_util.flatten_dict(state)
    for layer, stayed in kept(small).items():
        parts = tuple(layer.replace(".", "/").split("/"))
        for path in flat:
            name = path[-1]
            if name in reads and path[-1 - len(parts) : -1] == parts:
                axis, value = reads[name], flat[path]
                mask = alive(stayed, value.shape[axis])
                if len(mask) > 1:  # a set for every channel, on the other of the first two axes
                    mask = mask if axis == 1 else mask.T
                    shape = mask.shape + (1,) * (value.ndim - 2)
                else:
                    shape = tuple(-1 if i == axis else 1 for i in range(value.ndim))
                flat[path] = value * mask.reshape(shape)
    return traverse_util.unflatten_dict(flat)


def data(features: int = 2, length: int = 11) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(3, length, features)).astype("f4")


S5 = {
    "zoh": {},
    "bilinear": {"discretization": "bilinear"},
    "layer norm, after": {"batchnorm": False, "prenorm": False},
    "both ways": {"bidirectional": True},
    "joint C": {"bidirectional": True, "C_init": "complex_normal"},
    "full spectrum": {"conj_sym": False, "activation": "gelu"},
    "clipped": {"clip_eigs": True, "mode": "last", "activation": "half_glu2"},
}


@pytest.mark.parametrize("name", S5)
def test_s5(name, last, monkeypatch):
    install(monkeypatch, "s5_flax")
    of_ssm = {"C_init": "lecun_normal", "discretization": "zoh", "dt_min": 0.01, "dt_max": 0.2}
    of_ssm |= {"conj_sym": True, "clip_eigs": False, "bidirectional": False}
    of_model = {"d_output": 3, "d_model": 4, "n_layers": 2, "padded": False, "mode": "pool", "prenorm": True}
    of_model |= {"activation": "half_glu1", "batchnorm": True}
    ssm_options = {key: S5[name].get(key, value) for key, value in of_ssm.items()}
    model_options = {key: S5[name].get(key, value) for key, value in of_model.items()}

    init, hippo = importlib.import_module("s5.ssm"), importlib.import_module("s5.ssm_init")
    full = 12 if ssm_options["conj_sym"] else 6
    Lambda, _, _, V, _ = hippo.make_DPLR_HiPPO(full)
    Lambda, V = Lambda[:6], V[:, :6]
    ssm = init.init_S5SSM(4, 6, Lambda.real, Lambda.imag, V, V.conj().T, **ssm_options)
    module = importlib.import_module("s5.seq_model").BatchClassificationModel
    whole = module(ssm=ssm, training=False, **model_options)
    x = data()
    times = np.ones(x.shape[:2], "f4")
    state = initialised(whole, x, times)
    save("model.msgpack", state)
    described = {key: value for key, value in (ssm_options | model_options).items() if key in DESCRIBED}
    describe("model.msgpack", family="s5", norm="batch" if model_options["batchnorm"] else "layer", **described)

    scope = follow("docs/families/s5.md", {"ssm_options": ssm_options, "model_options": model_options, "x": x}, last)
    fits(scope["model"], scope["variables"], x, times)
    same(scope["log_probabilities"], outputs("small.msgpack", x))
    if not ssm_options["bidirectional"]:
        masked = silenced(state, "small.msgpack", {"C": 1})
        same(scope["log_probabilities"], whole.apply(masked, x, times))
    same(scope["ragged"], outputs("ragged.msgpack", x))


DESCRIBED = ("discretization", "conj_sym", "clip_eigs", "bidirectional", "activation", "prenorm", "mode")


@pytest.mark.parametrize("kind", ["s4d", "dss"])
@pytest.mark.parametrize("prenorm", [True, False])
def test_annotated_s4(kind, prenorm, last, monkeypatch):
    install(monkeypatch, "annotated_s4")
    layer_cls = getattr(importlib.import_module(f"s4.{kind}"), {"s4d": "S4DLayer", "dss": "DSSLayer"}[kind])
    stack = importlib.import_module("s4.s4").BatchStackedModel
    options = {"d_output": 3, "d_model": 4, "n_layers": 2, "classification": True, "prenorm": prenorm}
    x = data(features=1)
    whole = stack(layer_cls=layer_cls, layer={"N": 6, "l_max": 11}, training=False, **options)
    state = initialised(whole, x)
    save("model.msgpack", state)
    length = {"kernel_length": 11} if kind == "dss" else {}
    describe("model.msgpack", family=f"annotated_{kind}", prenorm=prenorm, mode="pool", **length)
    scope = follow("docs/families/annotated_s4.md", {"model_options": options, "l_max": 11, "x": x}, last)
    fits(scope["model"], {"params": scope["params"]}, x)
    same(scope["log_probabilities"], outputs("small.msgpack", x))
    masked = silenced(state, "small.msgpack", {"C": 0} if kind == "s4d" else {})
    if kind == "s4d":
        same(scope["log_probabilities"], whole.apply(masked, x))


@pytest.mark.parametrize(("norm", "prenorm", "pooling"), [("batch", True, "mean"), ("layer", False, "last")])
def test_minimal_lru(norm, prenorm, pooling, last, monkeypatch):
    install(monkeypatch, "minimal_lru")
    module = importlib.import_module("lru.model")
    options = {"d_output": 3, "d_model": 4, "n_layers": 2, "norm": norm, "prenorm": prenorm, "pooling": pooling}
    x = data()
    lru = functools.partial(module.LRU, d_hidden=6, d_model=4)
    whole = module.BatchClassificationModel(lru=lru, training=False, **options)
    state = initialised(whole, x)
    save("model.msgpack", state)
    describe("model.msgpack", family="lru", prenorm=prenorm, pooling=pooling)
    scope = follow(
        "docs/families/lru.md", {"model_options": options, "x": x}, last, under="Loading a compact file in JAX"
    )
    fits(scope["model"], scope["variables"], x)
    same(scope["log_probabilities"], outputs("small.msgpack", x))
    masked = silenced(state, "small.msgpack", {"C_re": 1, "C_im": 1})
    same(scope["log_probabilities"], whole.apply(masked, x))


EVENTS = {
    "async": {},
    "dirac": {"discretization": "dirac"},
    "conjugates": {"conj_sym": True},
    "batch norm, after": {"batchnorm": True, "prenorm": False},
}


@pytest.mark.parametrize("name", EVENTS)
def test_event_ssm(name, last, monkeypatch):
    install(monkeypatch, "event_ssm")
    init, seq = importlib.import_module("event_ssm.ssm"), importlib.import_module("event_ssm.seq_model")
    said = {"discretization": "async", "conj_sym": False, "batchnorm": False, "prenorm": True, **EVENTS[name]}
    ssm_options = {"C_init": "lecun_normal", "dt_min": 0.01, "dt_max": 0.2, "clip_eigs": False}
    ssm_options["conj_sym"] = said["conj_sym"]
    options = {"num_classes": 3, "d_model": 4, "num_stages": 2, "num_layers_per_stage": 2, "num_embeddings": 7}
    options |= {key: said[key] for key in ("discretization", "batchnorm", "prenorm")}
    n = 12 if said["conj_sym"] else 6
    whole = seq.BatchClassificationModel(ssm=init.init_S5SSM(**ssm_options), d_ssm=n, ssm_block_size=n, **options)
    rng = np.random.default_rng(3)
    tokens, times, lengths = rng.integers(0, 7, (3, 9)), np.ones((3, 9), "f4"), np.array([9, 9, 9])
    inputs = (tokens, times, lengths, False)
    state = initialised(whole, *inputs)
    stored = {"params": state["params"]}
    if "batch_stats" in state:
        stored["model_state"] = {"batch_stats": state["batch_stats"]}
    save("model.msgpack", stored)
    describe(
        "model.msgpack", family="event_ssm", **{key: said[key] for key in ("discretization", "conj_sym", "prenorm")}
    )
    scope = {"ssm_options": ssm_options, "model_options": options}
    scope |= {"tokens": tokens, "times": times, "lengths": lengths}
    scope = follow("docs/families/event_ssm.md", scope, last)
    fits(scope["model"], scope["variables"], *inputs)
    same(jax.nn.log_softmax(scope["logits"]), jax.nn.log_softmax(outputs("small.msgpack", tokens)))
    masked = silenced(state, "small.msgpack", {"C": 1})
    same(scope["logits"], whole.apply(masked, *inputs))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:When `eqx.nn.BatchNorm")
def test_linoss(last, monkeypatch):
    eqx = pytest.importorskip("equinox")
    install(monkeypatch, "linoss")
    LinOSS = importlib.import_module("models.LinOSS").LinOSS
    key, x = jax.random.PRNGKey(0), data()

    def build(key):
        return eqx.nn.make_with_state(LinOSS)(2, 2, 6, 4, 3, True, 1, "IM", key=key)

    def run(model, state):
        return jax.vmap(model, axis_name="batch", in_axes=(0, None, None), out_axes=(0, None))(x, state, key)

    whole, state = build(key)
    _, state = run(whole, state)  # one step of training, which fills the running statistics
    scope = follow("docs/families/linoss.md", {}, last, under="Running statistics")
    scope["export"](whole, state, "model.safetensors")
    fresh, _ = build(jax.random.PRNGKey(7))
    small = follow("docs/families/linoss.md", scope | {"model": fresh}, last, under="Loading a compact file")["model"]
    theirs, _ = run(small, state)
    same(np.log(theirs), jax.nn.log_softmax(outputs("small.safetensors", x)))
    masked = eqx.nn.inference_mode(whole)
    for i, stayed in enumerate(kept("small.safetensors").values()):
        mask = alive(stayed, 6).reshape(1, -1, 1)
        masked = eqx.tree_at(lambda m, i=i: m.blocks[i].ssm.C, masked, masked.blocks[i].ssm.C * mask)
    same(theirs, run(masked, state)[0])
