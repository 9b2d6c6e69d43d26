"""docs/capture.md: both examples run as they are written."""

import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.serialization import msgpack_serialize

import lastcli

PAGE = (Path(__file__).parents[2] / "docs" / "capture.md").read_text()


def snippets(title):
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)[1]
    return re.findall(r"^```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # the examples are code like anybody's
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield tmp_path
    for name in ("my_model", "tagger"):
        sys.modules.pop(name, None)


def test_the_torch_example(folder):
    import torch

    module, run = snippets("torch")
    (folder / "my_model.py").write_text(module)
    from my_model import Model

    torch.manual_seed(0)
    torch.save(Model().state_dict(), "model.pth")
    scope = {}
    exec(run, scope)
    assert scope["result"].refit == "calibrated"
    assert scope["result"].states_after == 48
    small = torch.load("small.pth")
    assert small["ssm.0.kernel.C"].shape[1] < 6 or small["ssm.1.kernel.C"].shape[1] < 6
    # the model around the layers is not known, so that calibration inputs would be of no use
    np.savez("x.npz", x=np.zeros((4, 9, 3), np.float32))
    with pytest.raises(lastcli.LastError, match="the model around them is not"):
        lastcli.prune("model.pth", dry_run=True, method="obs", ratio=0.5, calibration="x.npz")


@pytest.mark.slow  # tests/recording/test_capture.py records a flax model in every run
def test_the_flax_example(folder):
    module, run, by_hand = snippets("JAX")
    (folder / "tagger.py").write_text(module)
    from tagger import Tagger

    variables = Tagger().init(jax.random.key(0), np.zeros((1, 5, 3), np.float32))
    (folder / "tagger.msgpack").write_bytes(msgpack_serialize(jax.tree.map(np.asarray, variables)))
    scope = {}
    exec(run, scope)
    assert (scope["result"].refit, scope["result"].states_after) == ("calibrated", 6)
    exec(by_hand, scope)
    again = lastcli.prune("tagger.msgpack", dry_run=True, method="obs", ratio=0.5, layer_inputs="by_hand.safetensors")
    for first, second in zip(scope["result"].layers, again.layers):
        np.testing.assert_array_equal(first.kept, second.kept)
