"""S5's forward pass against a plain recurrence, and masking against compacting, for every option."""

import functools

import jax
import ml_dtypes
import numpy as np
import pytest

from lastcli.engine.embedding import as_precision, embed
from lastcli.engine.system import Reduction
from lastcli.errors import UsageError
from lastcli.families.s5.family import S5
from lastcli.families.s5.model import S5Model, _features
from tests.builders.named import infos, updated
from tests.builders.s5 import MODELS, s5_checkpoint, s5_config, s5_inputs
from tests.upstream import s5 as s5_reference

FAMILY = S5()
KEPT = ((0, 2, 5), (1,))


class Case:
    """A checkpoint of one option set, opened."""

    def __init__(self, name, **extra):
        self.model = MODELS[name]
        rng = np.random.default_rng(list(name.encode()))
        self.arrays = s5_checkpoint(rng, **self.model, **extra)
        self.config = s5_config(**self.model)
        self.x, self.lengths = s5_inputs(rng, **self.model)
        self.layers = FAMILY.layers(infos(self.arrays), self.config)
        self.systems = self.systems_of(self.arrays)
        self.compiled = None
        self.forward = FAMILY.forward(infos(self.arrays), self.config, self.layers)

    def systems_of(self, arrays):
        layers = FAMILY.layers(infos(arrays), self.config)
        return [FAMILY.system(layer, self.config, arrays.__getitem__) for layer in layers]

    def run(self, systems):
        params = {name: self.arrays[name] for name in self.forward.params}
        systems = tuple(as_precision(system, np.float32) for system in systems)
        self.compiled = self.compiled or jax.jit(self.forward.apply)
        return self.compiled(params, systems, self.x, self.lengths)

    def reductions(self):
        made = []
        for system, kept in zip(self.systems, KEPT):
            chosen = np.array([kept])
            reduced = system.replace(poles=system.poles[:, kept], B=system.B[:, kept], C=system.C[..., kept])
            made.append(Reduction(chosen, reduced, "none"))
        return made

    def compacted(self, sizes):
        new = {}
        for layer, reduction, size in zip(self.layers, self.reductions(), sizes):
            new |= FAMILY.rebuild(layer, self.config, self.arrays.__getitem__, reduction, size)
        return updated(self.arrays, new)


opened = functools.cache(Case)


def apply_module(arrays, config, case):
    """The flax module on a file's own parameters."""
    tree = {"params": {}, "batch_stats": {}}
    for name, values in arrays.items():
        node = tree
        *path, leaf = name.split("/")
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = values
    kernel = arrays["params/encoder/encoder/kernel"]
    model = S5Model(
        features=kernel.shape[0],
        d_model=kernel.shape[1],
        d_output=case.forward.outputs,
        ssm_sizes=tuple(v.shape[0] for n, v in arrays.items() if n.endswith("Lambda_re")),
        joint_c=case.model.get("joint", False),
        **config,
    )
    return jax.jit(model.apply)(tree, case.x, case.lengths)


@pytest.mark.parametrize("name", MODELS)
def test_forward_equals_recurrence_and_compacting_equals_masking(name):
    case = opened(name)
    full, layer_inputs = case.run(case.systems)
    expected = s5_reference.model(case.arrays, case.config, case.x, case.lengths)
    np.testing.assert_allclose(full, expected, rtol=2e-5, atol=2e-5)
    assert [u.shape[1:] for u in layer_inputs] == [(9, 4), (9, 4)]

    masked, _ = case.run([embed(system, made) for system, made in zip(case.systems, case.reductions())])
    assert np.abs(np.asarray(masked) - np.asarray(full)).max() > 1e-2
    ragged = case.compacted((3, 1))
    np.testing.assert_allclose(apply_module(ragged, case.config, case), masked, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        s5_reference.model(ragged, case.config, case.x, case.lengths), masked, rtol=2e-5, atol=2e-5
    )
    padded = case.compacted((4, 4))
    np.testing.assert_allclose(
        s5_reference.model(padded, case.config, case.x, case.lengths), masked, rtol=2e-5, atol=2e-5
    )
    assert max(np.abs(system.poles).max() for system in case.systems_of(padded)) < 1


def test_layer_inputs_are_what_the_layers_see():
    case = opened("regression")
    _, (_, second) = case.run(case.systems)
    t = {name: values.astype(np.float64) for name, values in case.arrays.items()}
    v = case.x[1] @ t["params/encoder/encoder/kernel"] + t["params/encoder/encoder/bias"]
    v = s5_reference.block(t, case.config, 0, v)
    spread = (v - v.mean(1, keepdims=True)) / np.sqrt(v.var(1, keepdims=True) + 1e-6)
    expected = spread * t["params/encoder/layers_1/norm/scale"] + t["params/encoder/layers_1/norm/bias"]
    np.testing.assert_allclose(second[1], expected, atol=1e-4)


def test_half_precision_parameters_compute_in_float32():
    case = Case("plain", dtype=ml_dtypes.bfloat16)
    y, _ = case.run(case.systems)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, s5_reference.model(case.arrays, case.config, case.x, None), atol=2e-5)
    assert {values.dtype for values in case.compacted((3, 1)).values()} == {np.dtype(ml_dtypes.bfloat16)}


def test_initialised_module_has_the_checkpoints_tree():
    for name in ("padded_both_ways", "retrieval"):
        case = opened(name)
        fields = {key: value for key, value in case.config.items() if key in S5Model.__dataclass_fields__}
        model = S5Model(features=3, d_output=2, d_model=4, ssm_sizes=(6, 5), **fields)
        variables = jax.eval_shape(model.init, jax.random.key(0), case.x, case.lengths)
        shapes = {
            "/".join(str(key.key) for key in path): leaf.shape
            for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
        }
        assert shapes == {name: values.shape for name, values in case.arrays.items()}


def test_a_model_of_padded_data_asks_for_the_lengths():
    model = S5Model(features=1, d_model=4, d_output=2, ssm_sizes=(3,), padded=True)
    with pytest.raises(UsageError, match="true lengths"):
        model.apply({"params": {}}, np.zeros((2, 5, 1), "f4"), None)


def test_single_numbers_are_one_feature_and_tokens_are_one_hot():
    np.testing.assert_array_equal(_features(np.array([[3.5, 1.0]], "f4"), 1), [[[3.5], [1.0]]])
    np.testing.assert_array_equal(_features(np.array([[2, 0]]), 3), [[[0, 0, 1], [1, 0, 0]]])
