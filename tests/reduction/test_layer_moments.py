"""Moments of many layers: the same whether they are in memory or not, and no more in memory than said."""

from __future__ import annotations

import tracemalloc

import jax
import numpy as np
import pytest

from lastcli.engine.moments import accumulate, empty_moments
from lastcli.engine.white_noise import white_noise_moments
from lastcli.errors import OutputError
from lastcli.reduction import layer_moments
from lastcli.reduction.layer_moments import LayerMoments
from tests.systems import random_system

SYSTEMS = [random_system(seed, states=5) for seed in range(4)]


def made(layer: int):
    return white_noise_moments(SYSTEMS[layer])


def same(one, other) -> bool:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)))


@pytest.mark.parametrize("kept", [0, 3000, 1 << 30])
def test_every_layer_comes_back_as_it_was_and_is_made_once(kept, monkeypatch):
    monkeypatch.setattr(layer_moments, "KEPT_BYTES", kept)
    asked: list[int] = []

    def make(layer: int):
        asked.append(layer)
        return made(layer)

    moments = LayerMoments(4, make)
    for _ in range(2):
        assert all(same(found, made(layer)) for layer, found in enumerate(moments))
    assert same(moments[2], made(2))
    assert asked == [0, 1, 2, 3]
    assert len(moments) == 4
    with pytest.raises(IndexError):
        moments[4]


@pytest.mark.parametrize("kept", [0, 1 << 30])
def test_what_is_put_replaces_what_was_there(kept, monkeypatch):
    monkeypatch.setattr(layer_moments, "KEPT_BYTES", kept)
    rng = np.random.default_rng(0)
    moments = LayerMoments(4, lambda layer: empty_moments(SYSTEMS[layer]))
    expected = [empty_moments(system) for system in SYSTEMS]
    for _ in range(3):
        u = rng.normal(size=(2, 7, SYSTEMS[0].inputs))
        for layer, system in enumerate(SYSTEMS):
            moments.put(layer, accumulate(moments[layer], system, u))
            expected[layer] = accumulate(expected[layer], system, u)
    assert all(same(found, wanted) for found, wanted in zip(moments, expected))


def test_memory_does_not_grow_with_the_layers(monkeypatch):
    monkeypatch.setattr(layer_moments, "KEPT_BYTES", 1 << 20)

    def peak(layers: int) -> int:
        moments = LayerMoments(layers, lambda layer: np.full(1 << 17, float(layer)))
        tracemalloc.start()
        try:
            assert [float(found[0]) for found in moments] == list(range(layers))
            assert [float(found[-1]) for found in moments] == list(range(layers))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(40) < peak(4) + (1 << 20)


def test_a_folder_that_takes_nothing_is_said(monkeypatch):
    monkeypatch.setattr(layer_moments, "KEPT_BYTES", 0)

    def full(*_args, **_given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(layer_moments.np, "save", full)
    with pytest.raises(OutputError, match=r"cannot be kept in .*: No space left on device; set TMPDIR to a folder"):
        LayerMoments(4, made)[0]


def test_the_temporary_folder_goes(monkeypatch, tmp_path):
    monkeypatch.setattr(layer_moments, "KEPT_BYTES", 0)
    monkeypatch.setattr(layer_moments.tempfile, "tempdir", str(tmp_path))
    moments = LayerMoments(4, made)
    assert moments[1] is not None
    assert list(tmp_path.iterdir())
    del moments
    assert not list(tmp_path.iterdir())
