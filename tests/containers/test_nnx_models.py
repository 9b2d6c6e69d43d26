"""S5 as flax.nnx saves it, through the whole of `last`: the same numbers as in linen's names."""

from __future__ import annotations

import json
import re

import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import serialization

from lastcli import containers
from tests.builders.s5 import s5_checkpoint, s5_config
from tests.containers.samples import contents

MODEL = {"activation": "half_glu1", "norm": "batch"}


def nnx_tree(arrays, *, variables, integers):
    """The tree of a model whose norms keep their own statistics and whose layers are a list."""
    tree: dict = {}
    for name, array in arrays.items():
        path = re.sub(r"layers_(\d+)", r"layers/\1", re.sub(r"^(params|batch_stats)/", "", name)).split("/")
        keys = [int(key) if integers and key.isdecimal() else key for key in path]
        node = tree
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = {"value": array} if variables else array
    return tree


@pytest.fixture(params=["orbax", "msgpack"])
def saved(request, tmp_path):
    """(path, tree, description)."""
    arrays = s5_checkpoint(np.random.default_rng(3), **MODEL)
    for name in arrays:
        if name.endswith("Lambda_re"):
            arrays[name] = -np.abs(arrays[name])
    tree = nnx_tree(arrays, variables=True, integers=request.param == "msgpack")
    path = tmp_path / ("x" if request.param == "orbax" else "x.msgpack")
    if request.param == "orbax":
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, tree)
    else:
        path.write_bytes(serialization.msgpack_serialize(tree))
    (tmp_path / "m.json").write_text(json.dumps({"family": "s5", **s5_config(**MODEL)}))
    containers.write(
        tmp_path / "linen.safetensors",
        [containers.TensorSource.of(name, array) for name, array in arrays.items()],
        metadata={containers.DESCRIPTION_KEY: (tmp_path / "m.json").read_text()},
    )
    return path, tree, tmp_path / "m.json"


def test_it_evaluates_as_in_linen_is_pruned_verified_and_written_with_the_same_leaves(saved, data, last, tmp_path):
    path, tree, described = saved
    said = ("--model-config", described)
    values = [
        json.loads(last("eval", *arguments, "--data", data, "--json")[1])["value"]
        for arguments in ((path, *said), (tmp_path / "linen.safetensors",))
    ]
    assert values[0] == values[1]
    out = tmp_path / f"small{path.suffix}"
    code, _, err = last("prune", path, *said, "--ratio", "0.3", "--out", out)
    assert code == 0, err
    assert last("verify", path, out, *said, "--data", data)[0] == 0
    if path.suffix:
        back = serialization.msgpack_restore(out.read_bytes())
        layer = back["encoder"]["layers"][0]["seq"]
    else:
        with ocp.StandardCheckpointer() as checkpointer:
            back = checkpointer.restore(out)
        layer = back["encoder"]["layers"]["0"]["seq"]
    assert set(back) == set(tree)
    assert list(layer["Lambda_re"]) == ["value"]
    assert layer["Lambda_re"]["value"].shape == (layer["log_step"]["value"].shape[0],)
    assert layer["Lambda_re"]["value"].shape < (6,)
    np.testing.assert_array_equal(back["decoder"]["kernel"]["value"], tree["decoder"]["kernel"]["value"])
    assert set(contents(out)) == set(contents(path))
