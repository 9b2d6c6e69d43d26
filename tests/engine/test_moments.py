import numpy as np
import pytest

from lastcli.engine import moments as module
from lastcli.engine.embedding import truncate_system
from lastcli.engine.features import feature_indices, readout_of, readout_to_C
from lastcli.engine.moments import accumulate, empty_moments
from lastcli.errors import InputError
from tests.engine.signals import by_group, columns, plain_features
from tests.oracles import recurrence
from tests.systems import KINDS, random_system, system_of


def inputs_of(system, n=4, length=11, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, length, system.groups if system.multi else system.inputs))


@pytest.mark.parametrize("kind", KINDS)
def test_accumulated_moments_are_weighted_means(kind, monkeypatch):
    system = system_of(kind, 4)
    u = inputs_of(system)
    weights = np.random.default_rng(1).uniform(0, 1, u.shape[:2])
    weights[:, -3:] = 0
    # two sequences a chunk, so that the third and fourth make a second one
    each = u.shape[1] * system.directions * system.poles.size * 16
    monkeypatch.setattr(module, "CHUNK_BYTES", 2 * each)
    found = accumulate(empty_moments(system), system, u[:1], weights[:1])
    found = accumulate(found, system, u[1:], weights[1:])

    f, v, y = plain_features(system, u), by_group(system, u), by_group(system, recurrence(system, u))
    share = weights / weights.sum()
    np.testing.assert_allclose(found.features, np.einsum("gtkf,tk,gtkh->gfh", f, share, f), atol=1e-9)
    np.testing.assert_allclose(found.input_features, np.einsum("gtkm,tk,gtkf->gmf", v, share, f), atol=1e-9)
    np.testing.assert_allclose(found.inputs, np.einsum("gtkm,tk,gtkl->gml", v, share, v), atol=1e-9)
    np.testing.assert_allclose(found.cross, np.einsum("gtkp,tk,gtkf->gpf", y, share, f), atol=1e-9)
    np.testing.assert_allclose(found.target_inputs, np.einsum("gtkp,tk,gtkm->gpm", y, share, v), atol=1e-9)
    np.testing.assert_allclose(found.energy, np.einsum("gtkp,tk->gp", y**2, share), atol=1e-9)
    assert found.weight == pytest.approx(weights.sum())


@pytest.mark.parametrize("weights", ["none", "alike", "padded"])
@pytest.mark.parametrize("kind", ["mimo", "delay", "bidirectional-real", "oscillators"])
def test_a_cpu_and_other_devices_find_the_same_moments(kind, weights, monkeypatch):
    system = system_of(kind, 4)
    u = inputs_of(system, n=5)
    target = np.random.default_rng(2).normal(size=(*u.shape[:2], system.outputs))
    given = None if weights == "none" else np.full(u.shape[:2], 0.25)
    if weights == "padded":
        given[1:, -3:] = 0
    # three chunks, the last of one sequence and one that fills it
    each = u.shape[1] * system.directions * system.poles.size * 16
    monkeypatch.setattr(module, "CHUNK_BYTES", 2 * each)

    def both(target):
        here = accumulate(empty_moments(system), system, u, given, target)
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(module.jax, "default_backend", lambda: "gpu")
            return here, accumulate(empty_moments(system), system, u, given, target)

    for here, there in (both(None), both(target)):
        for name in ("features", "input_features", "inputs", "cross", "target_inputs", "energy", "weight"):
            one, other = getattr(here, name), getattr(there, name)
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12 * np.abs(other).max(), err_msg=name)


@pytest.mark.parametrize(("examples", "most", "size"), [(64, 61, 32), (5, 2, 2), (4, 9, 4), (7, 0, 1), (0, 3, 1)])
def test_chunks_are_about_as_large(examples, most, size):
    assert module.even_chunk(examples, most) == size


@pytest.mark.parametrize("kind", ["mimo", "multi-bidirectional"])
def test_a_target_of_its_own_gives_the_own_moments(kind):
    system = system_of(kind, 5)
    u = inputs_of(system)
    own = accumulate(empty_moments(system), system, u)
    given = accumulate(empty_moments(system), system, u, target=recurrence(system, u))
    for name in ("cross", "target_inputs", "energy"):
        np.testing.assert_allclose(getattr(given, name), getattr(own, name), atol=1e-9)


def test_weightless_steps_may_hold_anything_as_target():
    system = random_system(6)
    u, weights = inputs_of(system), np.ones((4, 11))
    weights[:, 8:] = 0
    target = recurrence(system, u)
    clean = accumulate(empty_moments(system), system, u, weights, target)
    target[:, 8:] = np.nan
    np.testing.assert_array_equal(accumulate(empty_moments(system), system, u, weights, target).cross, clean.cross)


def test_a_batch_without_weight_changes_nothing():
    system = random_system(6)
    before = accumulate(empty_moments(system), system, inputs_of(system))
    after = accumulate(before, system, inputs_of(system, seed=9), np.zeros((4, 11)))
    np.testing.assert_allclose(after.features, before.features, rtol=1e-15)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_targets_that_are_not_finite_are_refused_where_they_count(value):
    system = random_system(6)
    u, weights = inputs_of(system), np.ones((4, 11))
    target = recurrence(system, u)
    target[2, 5, 1] = value
    with pytest.raises(InputError, match="not finite"):
        accumulate(empty_moments(system), system, u, weights, target)
    with pytest.raises(InputError, match="not finite"):
        accumulate(empty_moments(system), system, u, target=target)
    weights[2, 5] = 0
    assert np.isfinite(accumulate(empty_moments(system), system, u, weights, target).cross).all()


def test_inputs_that_are_not_finite_are_refused():
    system = random_system(6)
    u = inputs_of(system)
    u[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        accumulate(empty_moments(system), system, u)


@pytest.mark.parametrize("kind", KINDS)
def test_the_read_out_over_features_gives_the_output(kind):
    system = system_of(kind, 7)
    u = inputs_of(system)
    W = readout_of(system)
    y = np.einsum("gpf,gtkf->gtkp", W, plain_features(system, u))
    if system.D is not None:
        y = y + np.einsum("gpm,gtkm->gtkp", system.D, by_group(system, u))
    np.testing.assert_allclose(y, by_group(system, recurrence(system, u)), atol=1e-10)
    np.testing.assert_allclose(readout_to_C(W, system), system.C, atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_kept_features_belong_to_the_kept_states(kind):
    system = system_of(kind, 8)
    kept = np.sort(
        np.random.default_rng(0).permuted(np.tile(np.arange(system.states), (system.sets, 1)), axis=1)[:, :2]
    )
    reduced = truncate_system(system, kept)
    index = feature_indices(system, kept)
    u = inputs_of(system)
    whole, part = plain_features(system, u), plain_features(reduced, u)
    for g in range(system.groups):
        np.testing.assert_array_equal(index[g], columns(system, kept[g % system.sets]))
        np.testing.assert_array_equal(whole[g][..., index[g]], part[g])
