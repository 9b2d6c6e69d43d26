"""S4D with complex parameters: what is recognised, shared poles, and the documented layer on a compact file."""

from __future__ import annotations

import numpy as np
import pytest

from lastcli.engine.reductions import truncate
from lastcli.errors import UnsupportedModelError
from lastcli.families import detect
from lastcli.families.complex_s4d.family import ComplexS4D
from tests import oracles
from tests.builders.complex_s4d import complex_s4d_layer
from tests.builders.named import infos
from tests.builders.s4 import numbers, v3
from tests.families.rebuilding import (
    config_of,
    layers_of,
    masked,
    rebuilt,
    some_kept,
    systems_of,
)
from tests.upstream.layers import complex_s4d

FAMILY = ComplexS4D()


def layer(**of: object) -> dict[str, np.ndarray]:
    return complex_s4d_layer(np.random.default_rng(1), **of)


@pytest.mark.parametrize("of", [{}, {"tied": True}, {"B": True}, {"B": True, "pairs": True}, {"tied": True, "B": True}])
def test_a_smaller_layer_is_the_masked_one(of: dict[str, bool]) -> None:
    arrays = layer(**of)
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    kept = some_kept(system, 3)
    assert len(kept) == (1 if of.get("tied") else 3)
    small = rebuilt(FAMILY, arrays, config, [truncate(system, kept)])
    (after,) = systems_of(FAMILY, small, config)
    u = np.random.default_rng(2).normal(size=(1, 12, 3))
    np.testing.assert_allclose(oracles.recurrence(after, u), oracles.recurrence(masked(system, kept), u), atol=1e-12)


@pytest.mark.parametrize("of", [{}, {"pairs": True}])
def test_inert_states_are_silent(of: dict[str, bool]) -> None:
    arrays = layer(**of)
    (system,) = systems_of(FAMILY, arrays, config_of(FAMILY, arrays))
    small = rebuilt(FAMILY, arrays, config_of(FAMILY, arrays), [truncate(system, some_kept(system, 2))], size=4)
    (after,) = systems_of(FAMILY, small, config_of(FAMILY, small))
    assert after.states == 4
    assert not after.C[..., 2:].any()
    assert np.abs(after.poles).max() < 1


def test_the_step_may_be_called_log_step() -> None:
    arrays = layer(step="log_step")
    assert detect(infos(arrays)).name == "complex_s4d"
    assert layers_of(FAMILY, arrays, {})[0].states == 5


def test_a_step_that_all_channels_share() -> None:
    arrays = layer()
    arrays["s4d.log_dt"] = arrays["s4d.log_dt"][:1]
    (system,) = systems_of(FAMILY, arrays, config_of(FAMILY, arrays))
    u = np.random.default_rng(2).normal(size=(12, 3))
    stored = {name.removeprefix("s4d."): a for name, a in arrays.items()}
    expected = complex_s4d(stored, config_of(FAMILY, arrays), u)
    np.testing.assert_allclose(oracles.recurrence(system, u[None])[0], expected, atol=1e-9)


def test_the_poles_that_another_family_started_from_are_no_layer() -> None:
    arrays = {f"layer.{name}": a for name, a in v3(numbers(np.random.default_rng(0)), idle=True).items()}
    assert not FAMILY.match(infos(arrays)).found


@pytest.mark.parametrize(
    ("role", "shape", "sentence"),
    [
        ("A", (4, 5), r"s4d\.A has shape \(4, 5\); expected \(3, 5\) or \(5,\)"),
        ("C", (3, 5, 5), r"s4d\.C has shape \(3, 5, 5\); expected complex \(channels, states\)"),
        ("log_dt", (2,), r"s4d\.log_dt has shape \(2,\); expected \(3,\)"),
        ("D", (5,), r"s4d\.D has shape \(5,\)"),
    ],
)
def test_a_shape_that_contradicts_the_others_is_named(role: str, shape: tuple[int, ...], sentence: str) -> None:
    arrays = layer()
    arrays[f"s4d.{role}"] = np.zeros(shape, arrays[f"s4d.{role}"].dtype)
    with pytest.raises(UnsupportedModelError, match=sentence):
        layers_of(FAMILY, arrays, {})


@pytest.mark.parametrize("of", [{}, {"B": True, "pairs": True}, {"tied": True, "B": True}])
def test_magnitudes_are_the_stored_parameters_and_shared_ones_count_once(of: dict[str, bool]) -> None:
    arrays = layer(**of)
    (found,) = layers_of(FAMILY, arrays, config_of(FAMILY, arrays))
    values = {role: arrays[f"s4d.{role}"].astype("c16" if "pairs" not in of else "f8") for role in ("A", "B", "C")
              if f"s4d.{role}" in arrays}  # fmt: skip
    if "pairs" in of:
        values = {role: a[..., 0] + 1j * a[..., 1] for role, a in values.items()}
    wanted = np.zeros((1 if "tied" in of else 3, 5))
    for n in range(5):
        for h in range(3):
            wanted[h % len(wanted), n] += abs(values["C"][h, n]) ** 2
            for role in values.keys() - {"C"}:
                if values[role].ndim == 2:
                    wanted[h, n] += abs(values[role][h, n]) ** 2
                elif h == 0:
                    wanted[0, n] += abs(values[role][n]) ** 2
    np.testing.assert_allclose(FAMILY.magnitudes(found, {}, arrays.__getitem__), wanted, rtol=1e-6)
