"""Multiply-adds counted in the traced program against the sizes of its matrices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lastcli.engine.costs import step_cost
from lastcli.evaluation.work import multiply_adds, products_around
from lastcli.families.s5.family import S5
from tests.builders.named import infos
from tests.builders.s5 import s5_checkpoint, s5_config
from tests.systems import random_system

F, H, OUT, LENGTH = 3, 4, 2, 8


def shape(*axes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(axes, np.float32)


def test_products_of_programs() -> None:
    assert multiply_adds(lambda a, b: a @ b, shape(2, 3), shape(3, 5)) == 30
    looped = lambda a, b: jax.lax.scan(lambda x, _: (x @ b, None), a, None, length=7)[0]  # noqa: E731
    assert multiply_adds(looped, shape(2, 3), shape(3, 3)) == 7 * 18
    either = lambda a, b: jax.lax.cond(True, lambda: a @ b, lambda: a)  # noqa: E731
    assert multiply_adds(either, shape(2, 3), shape(3, 3)) == 18
    taps = lambda x, w: jax.lax.conv_general_dilated(x, w, (1,), "VALID", feature_group_count=4)  # noqa: E731
    assert multiply_adds(taps, shape(2, 4, 10), shape(4, 1, 3)) == 2 * 4 * 8 * 3
    assert multiply_adds(lambda a: jnp.tanh(a) * a, shape(2, 3)) == 0


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        # stepped: the head at every step
        ({"activation": "full_glu"}, F * H + 2 * 2 * H * H + H * OUT),
        ({"activation": "gelu", "mode": "sequence"}, F * H + H * OUT),
        # of a whole sequence: the head once
        ({"activation": "half_glu1", "bidirectional": True}, F * H + 2 * H * H + H * OUT // LENGTH),
    ],
    ids=["pooled", "every step", "both ways"],
)
def test_around_the_layers(model: dict, expected: int) -> None:
    family, arrays = S5(), s5_checkpoint(np.random.default_rng(0), **model)
    config = s5_config(**model)
    layers = family.layers(infos(arrays), config)
    forward = family.forward(infos(arrays), config, layers)
    systems = [family.system(layer, config, arrays.__getitem__) for layer in layers]
    assert forward is not None
    params = {name: arrays[name] for name in forward.params}
    assert products_around(forward, params, systems, LENGTH) == expected


def test_what_a_step_costs_a_layer() -> None:
    """Five states, three inputs and two outputs, all complex: λx 4, B u 2 an input, Re(C x) 2 an output."""
    one = random_system(feedthrough="none")
    assert step_cost(one) == (10, 5 * (4 + 2 * 3 + 2 * 2))
    assert step_cost(random_system()) == (10, 5 * 14 + 3 * 2)
    assert step_cost(random_system(feedthrough="none", directions=2)) == (20, 2 * 5 * 14)
    real = one.replace(poles=np.abs(one.poles) + 0j, B=one.B.real + 0j, C=one.C.real + 0j)
    assert step_cost(real) == (5, 5 * (1 + 3 + 2))
