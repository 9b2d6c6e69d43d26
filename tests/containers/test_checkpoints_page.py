"""docs/checkpoints.md: its functions and commands run on a module of the kind it speaks of; equinox is played."""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.builders.eqx import eqx_bytes
from tests.containers.test_equinox import arrays_in

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"


def model(d_state, key):
    """An S5 layer between two maps, as a tree in the order of its fields."""
    n = lambda i, *shape: jax.random.normal(jax.random.fold_in(key, i), shape)  # noqa: E731
    width = 3
    layer = {
        "A_re": -jnp.exp(n(0, d_state)), "A_w": n(1, d_state), "B": n(2, d_state, width, 2),
        "C": n(3, width, d_state, 2), "D": n(4, width), "E_log_step": n(5, d_state, 1) - 2,
    }  # fmt: skip
    named = dict(zip(layer, ("Lambda_re", "Lambda_im", "B", "C", "D", "log_step"), strict=True))
    return Tree({named[key]: value for key, value in layer.items()} | {"d_state": d_state})


@jax.tree_util.register_pytree_with_keys_class
class Tree:
    """A module: its fields in the order in which they are declared."""

    def __init__(self, fields):
        self.fields = fields

    def tree_flatten_with_keys(self):
        return [(jax.tree_util.GetAttrKey(key), value) for key, value in self.fields.items()], tuple(self.fields)

    @classmethod
    def tree_unflatten(cls, keys, values):
        return cls(dict(zip(keys, values, strict=True)))


def deserialise(path, like):
    """`equinox.tree_deserialise_leaves`: every leaf replaced in order, its shape that of the skeleton."""
    leaves, tree = jax.tree.flatten(like)
    found = arrays_in(Path(path))[1]
    assert [np.shape(leaf) for leaf in leaves] == [array.shape for array in found]
    return jax.tree.unflatten(tree, found)


@pytest.fixture
def equinox(monkeypatch):
    module = types.ModuleType("equinox")
    module.filter_eval_shape = lambda function, **options: function(**options)
    module.tree_deserialise_leaves = deserialise
    train = types.ModuleType("train")
    train.Model = model
    monkeypatch.setitem(sys.modules, "equinox", module)
    monkeypatch.setitem(sys.modules, "train", train)


def test_the_page_runs(equinox, last, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    skeleton, load = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (commands,) = re.findall(r"```console\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (tmp_path / "skeleton.py").write_text(skeleton)
    (tmp_path / "model.eqx").write_bytes(eqx_bytes(jax.tree.leaves(model(64, jax.random.key(1)))))
    for line in commands.splitlines():
        code, _, err = last(*line.removeprefix("$ last ").split())
        assert code == 0, err
    scope: dict = {}
    exec(compile(skeleton, "skeleton", "exec"), scope)
    exec(compile(load, "load", "exec"), scope)
    assert scope["small"].fields["d_state"] == 32
    assert json.loads((tmp_path / "small.json").read_text())["family"] == "s5"
