import numpy as np
import pytest

from lastcli.engine.variables import layer_variables
from tests.oracles import recurrence
from tests.systems import KINDS, oscillators, random_system, system_of


def random_values(variables, seed=0, size=3.0):
    rng = np.random.default_rng(seed)
    return {name: size * rng.normal(size=zero.shape).astype(np.float32) for name, zero in variables.start.items()}


def inputs_of(system):
    return np.random.default_rng(1).normal(size=(2, 12, system.groups if system.multi else system.inputs))


@pytest.mark.parametrize("kind", KINDS)
def test_the_start_is_the_system_itself(kind):
    system = system_of(kind, 2)
    variables = layer_variables(system)
    found = variables.system({name: zero.astype(np.float32) for name, zero in variables.start.items()})
    u = inputs_of(system)
    np.testing.assert_allclose(recurrence(found, u), recurrence(system, u), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_any_values_give_a_stable_system_of_the_same_form(kind):
    system = system_of(kind, 2)
    variables = layer_variables(system)
    found = variables.system(random_values(variables))
    assert (np.abs(found.poles) <= 1).all()
    for name in ("poles", "B", "C"):
        assert getattr(found, name).shape == getattr(system, name).shape
    if kind == "bidirectional-real":
        assert (found.C.imag == 0).all()
        assert (found.C.real != system.C.real).all()
    if system.inputs == 1:
        np.testing.assert_allclose(found.B, system.B, rtol=1e-6)
    if system.modes > 1:
        np.testing.assert_allclose(found.poles, system.poles, rtol=1e-6)
    if kind == "tied":
        assert (found.poles == found.poles[:1]).all()


def test_a_read_out_shared_by_the_modes_of_a_state_stays_shared():
    system = oscillators(6)
    C = np.repeat(system.C[..., ::2], 2, axis=3)
    variables = layer_variables(system.replace(C=C, shared_readout=True))
    moved = np.asarray(variables.system(random_values(variables)).C)
    np.testing.assert_array_equal(moved[..., ::2], moved[..., 1::2])
    assert np.abs(moved - C).min() > 0


def test_poles_and_inputs_stay_where_the_format_fixes_them():
    system = random_system(4).replace(fixed_poles=True)
    moved = layer_variables(system)
    moved = moved.system(random_values(moved))
    np.testing.assert_allclose(moved.poles, system.poles, rtol=1e-6)
    np.testing.assert_allclose(moved.B, system.B, rtol=1e-6)
    assert np.abs(moved.C - system.C).min() > 0


@pytest.mark.parametrize("feedthrough", ["none", "diagonal", "dense"])
def test_feedthrough_moves_as_far_as_the_format_holds_it(feedthrough):
    system = random_system(3, inputs=3, outputs=3, feedthrough=feedthrough)
    variables = layer_variables(system)
    D = variables.system(random_values(variables)).D
    if feedthrough == "none":
        assert D is None
    else:
        moved = np.abs(np.asarray(D) - system.D)[0] > 1e-6
        np.testing.assert_array_equal(moved, np.ones((3, 3)) if feedthrough == "dense" else np.eye(3))


def test_a_unit_moves_the_parameters_by_about_their_own_size():
    system = random_system(4, inputs=3, outputs=3, feedthrough="none")
    system = system.replace(B=1e-4 * system.B, C=1e5 * system.C)
    variables = layer_variables(system)
    base = variables.base
    np.testing.assert_allclose((np.abs(base.B) ** 2).mean(axis=2), (np.abs(base.C) ** 2).mean(axis=(1, 2)))
    moved = variables.system({name: np.ones_like(zero, np.float32) for name, zero in variables.start.items()})
    ratio = np.abs(moved.C - base.C).mean() / np.abs(base.C).mean()
    assert 0.5 < ratio < 3


def test_a_state_on_or_beyond_the_unit_circle_is_not_free():
    system = random_system(3, states=3)
    poles = system.poles.copy()
    poles[0, 0] = 1.01 * np.exp(0.3j)
    layer = layer_variables(system.replace(poles=poles))
    moved = layer.system({name: np.full(zero.shape, 0.1) for name, zero in layer.start.items()})
    assert moved.poles[0, 0] == pytest.approx(poles[0, 0], rel=1e-6)
    np.testing.assert_allclose(moved.B[0, 0], layer.base.B[0, 0], rtol=1e-6)
    assert (np.abs(moved.poles[0, 1:] - poles[0, 1:]) > 1e-4).all()
    assert np.isfinite(np.asarray(moved.C)).all()
