"""Forward passes of models that are opened again are the very same functions, and of other models never."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import lastcli
from lastcli.errors import UnsupportedModelError
from lastcli.families import family_named
from lastcli.model.forwards import shared_forward
from tests.conftest import write_s5


def test_a_model_opened_again_is_the_same_function(tmp_path):
    paths = [write_s5(tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    first, second = (lastcli.open(path).require_forward() for path in paths)
    assert first.apply is second.apply


def test_other_sizes_options_and_tasks_are_other_functions(tmp_path):
    path = write_s5(tmp_path / "a.safetensors")
    lastcli.prune(path, tmp_path / "small.safetensors", ratio=0.5)
    whole = lastcli.open(path).require_forward()
    for other in (
        lastcli.open(tmp_path / "small.safetensors"),
        lastcli.open(path, model={"prenorm": False}),
        lastcli.open(path, model={"activation": "half_glu2"}),
    ):
        assert other.require_forward().apply is not whole.apply
    model = lastcli.open(path)
    model.take_task("multilabel")
    assert model.require_forward().task == "multilabel"
    assert lastcli.open(path).require_forward().task == whole.task


@pytest.mark.parametrize("change", ["shape", "dtype", "name"])
def test_another_tensor_is_another_question(change):
    asked = []

    class Asked(type(family_named("s5"))):
        def forward(self, tensors, config, layers):
            asked.append(tensors)

    family, model = Asked(), lastcli.open("bundled")
    name, info = next(iter(model.reader.tensors.items()))
    changed = {"shape": (*info.shape, 1), "dtype": "float16", "name": "other"}[change]
    tensors = {**model.reader.tensors, name: dataclasses.replace(info, **{change: changed})}
    if change == "name":
        tensors["other"] = tensors.pop(name)
    for given in (model.reader.tensors, tensors, dict(model.reader.tensors)):
        shared_forward(family, given, model.config, model.layers)
    assert len(asked) == 2


def test_options_are_compared_with_their_types_and_objects_not_at_all():
    asked = []

    class Asked(type(family_named("s5"))):
        def forward(self, tensors, config, layers):
            asked.append(config)

    family = Asked()
    for config in ({"a": 1}, {"a": True}, {"a": 1.0}, {"a": [1]}, {"a": (1,)}, {"a": {"b": 1}}, {"a": 1}):
        shared_forward(family, {}, config, ())
    assert len(asked) == 6
    for _ in range(2):
        shared_forward(family, {}, {"a": np.zeros(2)}, ())
    assert len(asked) == 8


def test_an_error_is_not_remembered():
    class Failing(type(family_named("s5"))):
        def forward(self, tensors, config, layers):
            raise UnsupportedModelError("not this one")

    family = Failing()
    for _ in range(2):
        with pytest.raises(UnsupportedModelError, match="not this one"):
            shared_forward(family, {}, {}, ())
