"""Quantised tensors are no weights: what needs one refuses in a sentence, what does not is left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.builders.named import Arrays
from tests.builders.s4d import s4d_model

Last = Callable[..., tuple[int, str, str]]


def written(folder: Path, name: str, suffix: str) -> tuple[Path, Path]:
    """A model whose tensor `name` is int8 with a scale beside it, and data for it."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    arrays: Arrays = s4d_model(rng)
    largest = np.abs(arrays[name]).max() / 127
    arrays[name + suffix] = np.array([largest], "f4")
    arrays[name] = np.round(arrays[name] / largest).astype("i1")
    save_file(arrays, folder / "m.safetensors")
    features, classes = arrays["encoder.weight"].shape[1], arrays["decoder.weight"].shape[0]
    x, y = rng.normal(size=(6, 12, features)).astype("f4"), np.arange(6) % classes
    np.savez(folder / "d.npz", x=x, y=y)
    return folder / "m.safetensors", folder / "d.npz"


@pytest.mark.parametrize("suffix", ["_scale", "_scales", ".scale"])
def test_a_forward_pass_over_quantised_weights_is_refused(tmp_path: Path, last: Last, suffix: str) -> None:
    path, data = written(tmp_path, "decoder.weight", suffix)
    code, _, err = last("eval", path, "--data", data)
    assert code == 4
    assert f"decoder.weight is quantised (int8, scaled by decoder.weight{suffix})" in " ".join(err.split())
    assert last("score", path)[0] == 0


def test_a_quantised_layer_is_refused_and_nothing_is_written(tmp_path: Path, last: Last) -> None:
    path, _ = written(tmp_path, "s4_layers.0.kernel.C", "_scale")
    code, _, err = last("prune", path, "--ratio", "0.5", "--out", tmp_path / "o.safetensors")
    assert code == 4
    assert "s4_layers.0.kernel.C is quantised" in " ".join(err.split())
    assert not (tmp_path / "o.safetensors").exists()
