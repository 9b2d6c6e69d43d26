"""Optimizer state in trees: by name, by what it looks like, and what only looks like it."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest
from flax import serialization

from lastcli.containers.base import TensorInfo
from lastcli.containers.optimizer import drop_optimizer


def layers(*shapes):
    return {f"layers_{i}": {"kernel": np.ones(shape, np.float32)} for i, shape in enumerate(shapes or ((3, 4), (4, 2)))}


def measure(leaf):
    return TensorInfo("", leaf.shape, "float32", leaf.nbytes) if isinstance(leaf, np.ndarray) else None


def dropped(tree):
    """Paths of what is left, and the sentences."""
    sentences = drop_optimizer(tree, measure)
    left = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is None)[0]
    return ["/".join(str(getattr(k, "key", getattr(k, "idx", None))) for k in path) for path, _ in left], sentences


def state_of(tx, params):
    state = serialization.to_state_dict(tx.init(params))
    return jax.tree.map(lambda leaf: np.asarray(leaf), state)


OPTIMIZERS = {
    "adam": optax.adam(1e-3),
    "sgd with momentum": optax.sgd(1e-2, momentum=0.9),
    "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.constant_schedule(1e-3))),
    "injected": optax.inject_hyperparams(optax.adam)(learning_rate=1e-3),
    "by label": optax.multi_transform(
        {"a": optax.adam(1e-3), "b": optax.sgd(1e-3)}, {"layers_0": {"kernel": "a"}, "layers_1": {"kernel": "b"}}
    ),
    "amsgrad": optax.amsgrad(1e-3),
    "accumulated": optax.MultiSteps(optax.adam(1e-3), 4).gradient_transformation(),
}


@pytest.mark.parametrize("where", ["opt_state", "optimizer", "training", "deep/inside/of"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optax_states_go_wherever_they_lie(name, where):
    params = layers()
    node = state = state_of(OPTIMIZERS[name], params)
    for key in reversed(where.split("/")):
        node = {key: node}
    left, sentences = dropped({"model": params, **node})
    assert left == ["model/layers_0/kernel", "model/layers_1/kernel"]
    assert len(sentences) == 1
    assert where.split("/")[0] in sentences[0]
    assert f"({len(jax.tree.leaves(state))} tensors," in sentences[0]


def test_states_without_moments_go_by_their_name():
    params = layers()
    for where in ("opt_state", "optimizer"):
        left, sentences = dropped({"params": params, where: state_of(optax.adafactor(1e-3), params), "step": 3})
        assert left == ["params/layers_0/kernel", "params/layers_1/kernel", "step"]
        assert len(sentences) == 1


def test_hand_written_moments_and_a_model_of_such_a_name():
    left, _ = dropped({"net": layers(), "adam": {"m": layers(), "v": layers(), "t": np.ones(())}})
    assert left == ["net/layers_0/kernel", "net/layers_1/kernel"]
    left, _ = dropped({"m": layers(), "state": {"mu": layers(), "nu": layers(), "count": np.ones(())}})
    assert left == ["m/layers_0/kernel", "m/layers_1/kernel"]


def test_the_model_inside_the_optimizer_stays():
    moments = {"0": {"count": np.ones(()), "mu": layers(), "nu": layers()}}
    left, _ = dropped({"optimizer": {"model": layers(), "opt_state": moments, "step": np.ones(())}})
    assert left == ["optimizer/model/layers_0/kernel", "optimizer/model/layers_1/kernel", "optimizer/step"]
    left, _ = dropped({"optimizer": {"target": layers(), "state": {"param_states": {"grad_ema": np.ones(3)}}}})
    assert left == ["optimizer/target/layers_0/kernel", "optimizer/target/layers_1/kernel"]


def test_a_list_keeps_the_places_of_the_others():
    adam = state_of(optax.adam(1e-3), layers())
    tree = {"saved": [layers(), adam, np.ones(3)]}
    assert dropped(tree)[0] == ["saved/0/layers_0/kernel", "saved/0/layers_1/kernel", "saved/2"]


@pytest.mark.parametrize(
    "tree",
    [
        {"params": layers(), "ema_params": layers()},
        {"params": layers(), "target_params": layers(), "step": np.ones(())},
        # layers that bear the names of moments and have the shapes of their sisters, or of other layers
        {"attention": {"q": layers((4, 4)), "k": layers((4, 4)), "v": layers((4, 4))}},
        {f"block_{i}": {n: {"kernel": np.ones((4, 4))} for n in ("q", "k", "v", "m")} for i in range(3)},
        {"encoder": {"mu": {"kernel": np.ones((8, 2))}, "logvar": {"kernel": np.ones((8, 2))}}, **layers((8, 8))},
        {"mu": np.ones((3, 4)), "nu": np.ones((3, 4)), "kernel": np.ones((3, 4))},
        {"mu": layers(), "nu": layers()},
        # nothing but the state of an optimizer
        {"opt_state": {"0": {"count": np.ones(()), "mu": layers(), "nu": layers()}}},
    ],
    ids=["ema", "target", "attention", "blocks", "vae", "leaves", "alone", "only"],
)
def test_what_only_looks_like_moments_stays(tree):
    before = len(jax.tree.leaves(tree))
    left, sentences = dropped(tree)
    assert len(left) == before
    assert sentences == ()


def test_moments_of_a_small_part_of_the_model_go_where_their_count_is_beside_them():
    params = {**layers((50, 50), (50, 50)), "head": {"kernel": np.ones((2, 3), np.float32)}}
    moments = {name: {"head": {"kernel": np.zeros((2, 3), np.float32)}} for name in ("mu", "nu")}
    tree = {"params": params, "deep": {"inside": {"count": np.zeros((), np.int32), **moments, "kept": np.ones(4)}}}
    paths, sentences = dropped(tree)
    assert not [path for path in paths if "mu" in path or "nu" in path]
    assert "params/head/kernel" in paths
    assert sentences
