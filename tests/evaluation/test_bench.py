"""Measuring in turns."""

from __future__ import annotations

import time

import numpy as np
import pytest

from lastcli.errors import InputError, UsageError
from lastcli.evaluation.bench import Contender, paired_speedup, time_models
from lastcli.evaluation.fitting import random_split
from tests.evaluation import models


def contender(kept: int = models.STATES) -> Contender:
    layers = tuple(s.replace(poles=s.poles[:, :kept], B=s.B[:, :kept], C=s.C[..., :kept]) for s in models.systems())
    return Contender(models.forward(models.Counted()), models.parameters(), layers)


def test_models_of_different_sizes_are_timed_on_one_batch() -> None:
    class Bar:
        done = 0

        def advance(self, n: int) -> None:
            self.done += n

    bar = Bar()
    split = random_split(contender().forward, n=16, length=12)
    timings = time_models([contender(), contender(2)], split, batch_size=8, repeats=3, progress=bar)
    assert bar.done == 6
    for timing in timings:
        assert timing.seconds.shape == (3,)
        assert timing.batch_size == 8
        low, high = timing.quantiles
        assert 0 < low <= timing.latency <= high
        assert timing.throughput == pytest.approx(8 / timing.latency)
        assert timing.compile_seconds > 0
        assert timing.steps is None  # the architecture has no step
        assert timing.peak_memory is not None
        assert timing.peak_memory > 0
    assert timings[0].memory_kind == timings[1].memory_kind is not None


def test_a_slow_model_is_seen_as_slow() -> None:
    import jax
    import jax.numpy as jnp

    def slow(params: dict, systems: object, x: object, lengths: object) -> tuple[object, tuple]:
        def wait(value: np.ndarray) -> np.ndarray:
            time.sleep(0.03)
            return np.asarray(value)

        shape = jax.ShapeDtypeStruct((x.shape[0], models.CLASSES), jnp.float32)  # type: ignore[attr-defined]
        return jax.pure_callback(wait, shape, x[:, 0, :1] * jnp.ones((1, models.CLASSES))), ()  # type: ignore[index]

    forward = contender().forward
    sleepy = Contender(type(forward)(slow, models.FEATURES, models.CLASSES), {}, ())
    split = random_split(forward, n=4, length=12)
    fast, late = time_models([contender(2), sleepy], split, repeats=3)
    assert late.latency >= 0.03
    assert paired_speedup(late.seconds, fast.seconds)[0] > 2


def test_outputs_that_are_not_finite_are_counted() -> None:
    sound = contender()
    params = {**sound.params, "out": np.full_like(sound.params["out"], np.inf)}
    spoilt = Contender(sound.forward, params, sound.systems)
    split = random_split(sound.forward, n=10, length=12)
    assert [t.non_finite for t in time_models([sound, spoilt], split, batch_size=6, repeats=1)] == [0, 6]


def test_speedup_is_paired() -> None:
    drift = np.random.default_rng(0).uniform(1, 50, 40)
    median, low, high = paired_speedup(1.5 * drift, drift)
    assert (median, low, high) == pytest.approx((1.5, 1.5, 1.5))
    assert paired_speedup(drift[:1], drift[:1]) == (1.0, None, None)


def test_refusals() -> None:
    split = random_split(contender().forward, n=4, length=12)
    with pytest.raises(UsageError, match="repeats"):
        time_models([contender()], split, repeats=0)
    with pytest.raises(InputError, match="features"):
        time_models([contender()], models.split(x=np.zeros((3, 9, 5), np.float32)))
