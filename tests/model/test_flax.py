import jax
import numpy as np
import pytest

import lastcli
from lastcli.errors import UnsupportedModelError
from lastcli.evaluation.data import Split
from lastcli.evaluation.passes import model_outputs
from lastcli.model.flax import flax_module
from tests.conftest import write_s5


@pytest.mark.parametrize("layout", ["ragged", "padded"])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "joint": True, "norm": "layer", "prenorm": False}])
def test_a_compact_file_loads_into_the_flax_module_and_answers_as_last_does(tmp_path, layout, options):
    original = write_s5(tmp_path / "model.safetensors", **options)
    lastcli.prune(original, tmp_path / "small.msgpack", ratio=0.5, layout=layout)
    checkpoint = lastcli.open(tmp_path / "small.msgpack")
    module, variables = flax_module(checkpoint)
    assert module.ssm_sizes == tuple(layer.states for layer in checkpoint.layers)
    x = np.random.default_rng(0).normal(size=(3, 9, 3)).astype(np.float32)
    expected = np.concatenate(list(model_outputs(checkpoint.forward, checkpoint.params, checkpoint.systems, Split(x))))
    np.testing.assert_allclose(np.asarray(module.apply(variables, x)), expected, rtol=1e-4, atol=1e-5)


def test_a_model_without_the_published_surroundings_is_refused(tmp_path):
    def strip(arrays):
        for name in [name for name in arrays if "encoder/encoder" in name]:
            del arrays[name]

    with pytest.raises(UnsupportedModelError, match="published"):
        flax_module(lastcli.open(write_s5(tmp_path / "model.safetensors", change=strip)))


def test_tensors_beside_the_published_model_are_no_variables_of_the_module(tmp_path):
    def beside(arrays):
        arrays["params/extra/w"] = np.ones(2, np.float32)

    _, variables = flax_module(lastcli.open(write_s5(tmp_path / "model.safetensors", change=beside)))
    _, plain = flax_module(lastcli.open(write_s5(tmp_path / "plain.safetensors")))
    assert jax.tree.structure(variables) == jax.tree.structure(plain)
