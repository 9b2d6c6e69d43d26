"""One step after the other says what a pass over the whole sequence says, for every model that can be stepped."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from lastcli.engine.engines import engine_of
from lastcli.families import family_named
from lastcli.families.base import Forward
from tests.builders.annotated import annotated_model
from tests.builders.equinox import equinox_model
from tests.builders.event_ssm import event_checkpoint
from tests.builders.lru import minimal_lru, torch_model
from tests.builders.named import Arrays, infos
from tests.builders.s4d import s4d_model
from tests.builders.s5 import s5_checkpoint
from tests.builders.s5_pytorch import s5_torch_block
from tests.families.rebuilding import config_of, layers_of, single, systems_of

LENGTH = 7
CASES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "S5, mean over time": ("s5", lambda rng: s5_checkpoint(rng, activation="full_glu"), {}),
    "S4D, mean over time": ("s4d", s4d_model, {}),
    "minimal-LRU, every step": ("lru", lambda rng: minimal_lru(rng, norm="batch"), {"pooling": "none"}),
    "LinOSS, every other step": (
        "linoss",
        lambda rng: equinox_model(head="linear_decoder"),
        {"task": "regression", "output_step": 2},
    ),
    "annotated S4D, one step late": (
        "annotated_s4d",
        lambda rng: annotated_model(rng, "s4d", embedding=True),
        {"mode": "sequence"},
    ),
}
MORE: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "S5, every step, layer norm": (
        "s5",
        lambda rng: s5_checkpoint(rng, norm="layer", prenorm=False, conj_sym=False),
        {"mode": "sequence", "prenorm": False, "conj_sym": False},
    ),
    "S4D, last step": ("s4d", s4d_model, {"mode": "last", "prenorm": True}),
    "minimal-LRU, mean": ("lru", lambda rng: minimal_lru(rng, norm="layer"), {}),
    "minimal-LRU, last step": ("lru", lambda rng: minimal_lru(rng, norm="layer"), {"pooling": "last"}),
    "DeepSSM": ("lru", torch_model, {}),
    "DLRU": ("lru", lambda rng: torch_model(rng, bias=True), {}),
    "LinOSS classifier": ("linoss", lambda rng: equinox_model(), {}),
    "equinox S5": ("s5", lambda rng: equinox_model("s5"), {}),
    "annotated S4D classifier": ("annotated_s4d", lambda rng: annotated_model(rng, "s4d"), {}),
    "annotated S4D, pixels": ("annotated_s4d", lambda rng: annotated_model(rng, "s4d"), {"mode": "sequence"}),
    "s5-pytorch": ("s5_pytorch", s5_torch_block, {}),
    "events": ("event_ssm", event_checkpoint, {}),
    "events, last": ("event_ssm", lambda rng: event_checkpoint(rng, prenorm=False), {"mode": "last", "prenorm": False}),
}


def inputs_of(forward: Forward, name: str, arrays: Arrays) -> np.ndarray:
    rng = np.random.default_rng(3)
    if name == "event_ssm" or any(tensor.endswith("embedding") for tensor in arrays):
        return rng.integers(0, forward.features, (2, LENGTH)).astype(np.int32)
    return rng.normal(size=(2, LENGTH, forward.features)).astype(np.float32)


def both(forward: Forward, params: Arrays, systems: list[Any], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The outputs of a pass, and those of every step in a row (n, L, ...)."""
    step, start = forward.step, forward.start
    assert step is not None
    assert start is not None
    ready = tuple(engine_of(system).recurrent(system) for system in systems)
    cache = start(ready, len(x))

    def one(cache: Any, x: Any) -> tuple[Any, Any]:
        outputs, cache = step(params, ready, cache, x)
        return cache, outputs

    def run(x: Any) -> tuple[Any, Any]:
        steps = jax.lax.scan(one, cache, jax.numpy.swapaxes(x, 0, 1))[1]
        return forward.apply(params, systems, x, None)[0], jax.numpy.swapaxes(steps, 0, 1)

    outputs, steps = jax.jit(run)(x)
    return np.asarray(outputs), np.asarray(steps)


def check(name: str, build: Any, changes: dict[str, Any]) -> None:
    family, arrays = family_named(name), build(np.random.default_rng(1))
    config = config_of(family, arrays, **changes)
    forward = family.forward(infos(arrays), config, layers_of(family, arrays, config))
    assert forward is not None
    systems = [single(system) for system in systems_of(family, arrays, config)]
    params = {used: arrays[used] for used in forward.params}
    outputs, steps = both(forward, params, systems, inputs_of(forward, name, arrays))
    assert np.abs(outputs).max() > 0.05
    if forward.sequence:
        steps = steps[:, forward.output_step - 1 :: forward.output_step]
    np.testing.assert_allclose(steps if forward.sequence else steps[:, -1], outputs, atol=2e-5 * np.abs(outputs).max())


@pytest.mark.parametrize("case", CASES)
def test_step_by_step(case: str) -> None:
    check(*CASES[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", MORE)
def test_step_by_step_of_the_other_options(case: str) -> None:
    check(*MORE[case])
