import numpy as np

from lastcli.engine import signals
from lastcli.engine.embedding import embed
from lastcli.engine.reductions import truncate
from lastcli.engine.signals import load_signals
from lastcli.reduction import pole_refit
from lastcli.reduction.calibration import layer_signals, sequential_refit
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


class Read:
    """Batches that count how often they are read."""

    def __init__(self, batches):
        self.batches, self.times = list(batches), 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        self.times += 1
        yield from self.batches


def test_a_search_takes_the_signals_that_its_start_was_refitted_on(monkeypatch):
    params, layers, data = parameters(), systems(), split(n=60)
    keeps = [np.array([[0, 3]]), np.array([[1, 4]])]
    taken = []

    def watched(system, start, signals, **_):
        taken.append(list(signals))
        return start

    monkeypatch.setattr(pole_refit, "refit_poles", watched)
    batches = Read(data.batches(20))
    starts = [truncate(system, kept) for system, kept in zip(layers, keeps)]
    found = sequential_pole_refit(forward(Counted()), params, layers, starts, batches)
    assert batches.times == 2
    current = [embed(layers[0], found[0]), layers[1]]
    for i, now in enumerate([layers, current]):
        wanted = list(layer_signals(forward(Counted()), params, layers, now, i, batches.batches))
        assert len(taken[i]) == len(wanted) == 3
        for ours, theirs in zip(taken[i], wanted):
            for part, other in zip(ours, theirs):
                np.testing.assert_array_equal(part, other)


def test_of_many_signals_as_many_are_kept_as_a_search_takes_in(monkeypatch):
    start = truncate(systems()[0], np.array([[0, 3]]))
    rng = np.random.default_rng(0)
    m, p, length = start.system.inputs, start.system.outputs, 10
    made = [(rng.normal(size=(4, length, m)), rng.normal(size=(4, length, p)), np.ones((4, length))) for _ in range(9)]
    made[1][2][1:] = 0  # sequences that do not count take no room
    for module in (pole_refit, signals):
        monkeypatch.setattr(module, "SIGNAL_BYTES", 11 * signals.sequence_bytes(start.system, length))
    arriving = pole_refit._Arriving(lambda batches: iter(batches), start)
    assert len(list(arriving(made))) == 9
    first = arriving.first(made)
    assert len(first) == 4
    np.testing.assert_array_equal(load_signals(start.system, first).u, load_signals(start.system, made).u)
    other = made[5:]
    assert next(iter(arriving.first(other))) is other[0]
