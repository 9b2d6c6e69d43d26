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
