import numpy as np

from lastcli.engine.reductions import truncate
from lastcli.reduction.calibration import sequential_refit
from lastcli.reduction.pole_refit import sequential_pole_refit
from tests.evaluation.models import Counted, forward, parameters, split, systems
from tests.reduction.test_calibration import layer_error


def test_poles_refitted_layer_by_layer_beat_the_sequential_refit():
    params, layers, data = parameters(), systems(), split(n=60)
    keeps = [np.array([[0, 3]]), np.array([[1, 4]])]
    batches = data.batches(20)
    start = [truncate(system, kept) for system, kept in zip(layers, keeps)]
    seen = []
    found = sequential_pole_refit(
        forward(Counted()), params, layers, start, batches, steps=20, progress=lambda *state: seen.append(state)
    )
    refitted = sequential_refit(forward(Counted()), params, layers, keeps, batches)
    fresh = split(n=60, seed=9)
    assert layer_error(params, layers, found, fresh) < 0.95 * layer_error(params, layers, refitted, fresh)
    assert [reduction.changed for reduction in found] == ["all", "all"]
    assert all((np.abs(reduction.system.poles) < 1).all() for reduction in found)
    assert seen[-1] == (40, 40)
    assert seen == sorted(seen)


def test_a_layer_that_is_done_early_fills_its_share_of_the_progress():
    params, layers, data = parameters(), systems(), split(n=60)
    whole = [truncate(system, np.arange(6)[None]) for system in layers]
    seen = []
    sequential_pole_refit(
        forward(Counted()), params, layers, whole, data.batches(20), steps=300,
        progress=lambda *state: seen.append(state),
    )  # fmt: skip
    assert len(seen) < 600
    assert (300, 600) in seen
    assert seen[-1] == (600, 600)
