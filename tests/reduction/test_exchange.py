"""States exchanged between layers: the search against all divisions there are, the error against a plain recurrence."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import lastcli
from lastcli.evaluation.passes import model_outputs
from lastcli.plan import METHODS, REFITS, build_plan
from lastcli.reduction.compressor import Compressor
from lastcli.reduction.end_to_end import OutputError
from lastcli.reduction.exchange import Layer, exchange_between_layers
from tests.reduction.muffled import muffled_model

OBS, EXCHANGE, CALIBRATED = METHODS["obs"], METHODS["obs-exchange"], REFITS["calibrated"]


@pytest.mark.parametrize("seed", range(5))
def test_of_convex_errors_the_best_division_is_found(seed):
    """Layers that lose w·exp(-k·a) independently of one another: exchanges lead to the best of all divisions."""
    rng = np.random.default_rng(seed)
    w, a = rng.uniform(0.5, 5, 3), rng.uniform(0.1, 1, 3)

    def error(counts):
        return float((w * np.exp(-a * np.array(counts))).sum())

    found = exchange_between_layers((10, 10, 10), [Layer(1, 1, 16)] * 3, error)
    divisions = [d for d in itertools.product(range(1, 17), repeat=3) if sum(d) == 30]
    assert found.after == pytest.approx(min(map(error, divisions)))
    assert sum(found.counts) == 30
    assert found.before == error((10, 10, 10))


def test_bounds_are_kept_and_no_more_states_than_before():
    """The third layer stores four states a rank; the first wants everything, the second must keep five."""
    layers = [Layer(1, 1, 30), Layer(1, 5, 30), Layer(4, 1, 30)]
    found = exchange_between_layers((10, 10, 10), layers, lambda counts: -counts[0])
    assert found.counts[0] == 30
    assert found.counts[1] >= 5
    assert found.counts[2] >= 1
    assert sum(count * layer.cost for count, layer in zip(found.counts, layers)) <= 10 + 10 + 40


def test_where_nothing_helps_nothing_moves_and_no_division_is_measured_twice():
    seen = []

    def error(counts):
        seen.append(counts)
        return float(sum((count - 8) ** 2 for count in counts))

    counted = []
    found = exchange_between_layers((8, 8), [Layer(1, 1, 16)] * 2, error, progress=counted.append)
    assert found.counts == (8, 8)
    assert len(seen) == len(set(seen)) == found.tried == sum(counted)


@pytest.fixture
def muffled(tmp_path):
    """Path, model and calibration inputs, see `muffled_model`."""
    path = tmp_path / "m.safetensors"
    return path, *muffled_model(path)


def test_the_layer_that_is_heard_gets_the_states(muffled):
    _, model, split = muffled
    compressor = Compressor(model, build_plan({}), split)
    plain = [kept.shape[1] for kept in compressor.kept(OBS, CALIBRATED, states=6)]
    found = [kept.shape[1] for kept in compressor.kept(EXCHANGE, CALIBRATED, states=6)]
    assert sum(found) == sum(plain) == 6
    assert found[0] > plain[0]
    assert f"{' '.join(map(str, plain))} by the ranking, {' '.join(map(str, found))} now" in compressor.decisions[-1]


def test_the_error_is_that_of_the_reduced_model(muffled, tmp_path, last):
    """Of a division, measured here, and by pruning to it and evaluating both files' outputs."""
    path, model, split = muffled
    compressor = Compressor(model, build_plan({}), split)
    kept = compressor.kept(OBS, CALIBRATED, states=6)
    moments, ranks = compressor.moments("calibrated"), compressor.ranks(OBS, CALIBRATED)
    error = OutputError(model, model.systems, ranks, moments, split)
    counts = [keep.shape[1] for keep in kept]
    np.savez(tmp_path / "c.npz", x=np.asarray(split.x))
    lastcli.prune(path, tmp_path / "o.safetensors", method="obs", states=6, calibration=tmp_path / "c.npz")
    logits = []
    for file in (path, tmp_path / "o.safetensors"):
        with lastcli.open(file) as opened:
            forward = opened.require_forward()
            logits.append(np.concatenate(list(model_outputs(forward, opened.params, opened.systems, split))))
    p, q = (np.exp(z - z.max(1, keepdims=True)) for z in logits)
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    expected = (p * np.log(p / q)).sum(1).mean()
    # the exchange inside a layer may take another state than the best rank
    assert error(counts) == pytest.approx(expected, rel=0.2, abs=1e-7)


def test_in_a_later_stage_the_aim_is_still_what_the_original_says(muffled):
    _, model, split = muffled
    first = Compressor(model, build_plan({}), split).reduce(OBS, CALIBRATED, states=6)
    stage = Compressor(model, build_plan({}), split, systems=[reduction.system for reduction in first])
    ranks, moments = stage.ranks(OBS, CALIBRATED), stage.moments("calibrated")
    error = OutputError(model, stage.systems, ranks, moments, split)
    assert error([system.states for system in stage.systems]) > 1e-6


def test_pinned_states_stay_in_any_division(muffled):
    _, model, split = muffled
    compressor = Compressor(model, build_plan({}), split)
    ranks, moments = compressor.ranks(OBS, CALIBRATED), compressor.moments("calibrated")
    pinned = [np.zeros(rank.shape, bool) for rank in ranks]
    worst = int(np.argmin(ranks[0][0]))
    pinned[0][0, worst] = True
    error = OutputError(model, model.systems, ranks, moments, split, pinned)
    assert worst in error.kept([1, 1])[0]
    assert [layer.least for layer in error.layers(0)] == [1, 1]


def test_it_is_pruned_swept_and_verified(last, muffled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, _, split = muffled
    np.savez(tmp_path / "c.npz", x=np.asarray(split.x))
    code, out, err = last(
        "prune", path, "--method", "obs-exchange", "--states", "6", "--calibration", "c.npz", "--out", "o.safetensors"
    )
    assert code == 0, err
    assert "States exchanged between layers" in " ".join(out.split())
    code, out, err = last("verify", path, "o.safetensors", "--calibration", "c.npz")
    assert code == 0, err
    assert "recomputed" in out


@pytest.mark.parametrize("layout", ["uniform"])
def test_layers_of_one_size_exchange_nothing(muffled, layout):
    _, model, split = muffled
    compressor = Compressor(model, build_plan({"layout": layout}), split)
    counts = {kept.shape[1] for kept in compressor.kept(EXCHANGE, CALIBRATED, states=6)}
    assert len(counts) == 1
