"""Selective layers: scans, moments, the folded read-out and the layer-wise fit, against computations written out."""

import dataclasses

import numpy as np
import pytest

from lastcli.engine.engines import engine_of
from lastcli.engine.selective import moments as moments_module
from lastcli.engine.selective.moments import accumulate, empty_moments, maps_of
from lastcli.engine.selective.readout import fold
from lastcli.engine.system import diagonal
from lastcli.errors import InputError, UnsupportedModelError, UsageError
from lastcli.families import family_named
from tests.builders.mamba import language_model, mamba1, mamba2, silu, softplus
from tests.families.rebuilding import config_of, systems_of

SIGNALS = np.random.default_rng(2).normal(size=(5, 40, 6))


def made(version, **of):
    arrays = language_model(np.random.default_rng(version), version, layers=1, **of)
    family = family_named("mamba" if version == 1 else "mamba2")
    config = config_of(family, arrays, **({} if version == 1 else {"groups": 2}))
    (system,) = systems_of(family, arrays, config)
    return arrays, system


def states_of(arrays, u):
    """(L, d, N) states, (L, d) gates, x (L, d) and what makes step, B and C (L, r + 2N), written out."""
    prefix = "backbone.layers.0.mixer."
    p = {name.removeprefix(prefix): a.astype(float) for name, a in arrays.items() if name.startswith(prefix)}
    d, N = p["A_log"].shape
    r = p["dt_proj.weight"].shape[1]
    xz = u @ p["in_proj.weight"].T
    x, h, found = xz[:, :d], np.zeros((d, N)), []
    padded = np.concatenate([np.zeros((3, d)), x])
    taps = p["conv1d.weight"][:, 0]
    x = silu(sum(padded[k : k + len(u)] * taps[:, k] for k in range(4)) + p["conv1d.bias"])
    raw = x @ p["x_proj.weight"].T
    for t in range(len(u)):
        step = softplus(p["dt_proj.weight"] @ raw[t, :r] + p["dt_proj.bias"])
        h = np.exp(-step[:, None] * np.exp(p["A_log"])) * h + step[:, None] * raw[t, r : r + N] * x[t][:, None]
        found.append(h)
    return np.array(found), silu(xz[:, d:]), x, raw


@pytest.mark.parametrize("version", [1, 2])
def test_long_sequences_pass_through_chunks(version):
    """More than one chunk of the scan, and a last one that is not full."""
    arrays, system = made(version)
    u = np.random.default_rng(0).normal(size=(2, 150, 6))
    wanted = np.stack([(mamba1 if version == 1 else mamba2)(arrays, "backbone.layers.0.mixer.", row) for row in u])
    np.testing.assert_allclose(engine_of(system).output(system, u), wanted, atol=1e-9)


def test_scans_side_by_side_agree_with_steps(monkeypatch):
    _, system = made(1)
    wanted = engine_of(system).output(system, SIGNALS)
    from lastcli.engine.selective import mixer, scan

    monkeypatch.setattr(scan.jax, "default_backend", lambda: "gpu")
    mixer._mix.clear_cache()
    np.testing.assert_allclose(engine_of(system).output(system, SIGNALS), wanted, atol=1e-10)
    mixer._mix.clear_cache()


def test_the_folded_read_out_is_the_least_squares_solution():
    """Features m_p V_n and the regressors of D written out, and NumPy's own solver."""
    arrays, system = made(1)
    found = accumulate(empty_moments(system), system, SIGNALS)
    found = dataclasses.replace(found, weight=np.asarray(1e12))  # as after many steps: the ridge is its floor
    kept = np.array([[0, 3]])
    reduced = fold(system, kept, found)
    rows, columns, targets = maps_of(system), [], []
    W = np.asarray(system.out_proj, float)
    for u in SIGNALS:
        h, gate, x, _ = states_of(arrays, u)
        m = x @ rows.T
        V = np.einsum("hd,td,tdn->tnh", W, gate, h)[:, kept[0]]
        features = np.einsum("tnh,tp->thnp", V, m).reshape(len(u) * 6, -1)
        direct = np.einsum("hd,td->thd", W, gate * x).reshape(len(u) * 6, -1)
        columns.append(np.concatenate([features, direct], axis=1))
        targets.append(mamba1(arrays, "backbone.layers.0.mixer.", u).reshape(-1))
    X, y = np.concatenate(columns), np.concatenate(targets)
    best = ((y - X @ np.linalg.lstsq(X, y, rcond=None)[0]) ** 2).sum()
    answers = engine_of(system).output(reduced, SIGNALS)
    error = ((answers - np.stack([t.reshape(-1, 6) for t in targets])) ** 2).sum()
    assert best <= error * (1 + 1e-9)
    assert error <= best * 1.001 + 1e-6 * (y**2).sum()


def test_elimination_ranks_by_what_the_fold_cannot_make_good():
    _, system = made(1)
    found = accumulate(empty_moments(system), system, SIGNALS)
    found = dataclasses.replace(found, weight=np.asarray(1e12))
    curve = engine_of(system).eliminate(system, found)
    first = int(curve.order[0, 0])
    wanted = engine_of(system).output(system, SIGNALS)

    def error(gone):
        reduced = fold(system, np.array([[n for n in range(5) if n != gone]]), found)
        return ((engine_of(system).output(reduced, SIGNALS) - wanted) ** 2).sum()

    errors = [error(gone) for gone in range(5)]
    assert errors[first] <= min(errors) * 1.05 + 1e-9
    assert (np.diff(curve.layer_scores) >= 0).all()


def test_contributions_are_gated_energies():
    arrays, system = made(1)
    found = accumulate(empty_moments(system), system, SIGNALS)
    total = np.zeros(5)
    W = np.asarray(system.out_proj, float)
    for u in SIGNALS:
        h, gate, _, raw = states_of(arrays, u)
        C = raw[:, -5:]
        total += ((h * C[:, None] * gate[..., None]) ** 2 * (W**2).sum(axis=0)[None, :, None]).sum(axis=(0, 1))
    np.testing.assert_allclose(found.contribution[0], total / (5 * 40), rtol=1e-8)


@pytest.mark.parametrize("version", [1, 2])
def test_moments_do_not_depend_on_how_they_are_streamed(version, monkeypatch):
    _, system = made(version)
    whole = accumulate(empty_moments(system), system, SIGNALS)
    monkeypatch.setattr(moments_module, "CHUNK_BYTES", 1)
    parts = empty_moments(system)
    for batch in (SIGNALS[:2], SIGNALS[2:]):
        parts = accumulate(parts, system, batch)
    for field in dataclasses.fields(whole):
        first, second = getattr(whole, field.name), getattr(parts, field.name)
        assert (first is None) == (second is None)
        if first is not None:
            np.testing.assert_allclose(second, first, rtol=1e-9, atol=1e-12 * max(np.abs(first).max(), 1))


def test_padding_does_not_count():
    _, system = made(1)
    weights = np.ones(SIGNALS.shape[:2])
    weights[:, 25:] = 0
    counted = accumulate(empty_moments(system), system, SIGNALS, weights)
    cut = accumulate(empty_moments(system), system, SIGNALS[:, :25])
    np.testing.assert_allclose(counted.gram, cut.gram, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("version", [1, 2])
def test_a_refit_answers_better_than_leaving_states_out(version):
    _, system = made(version)
    engine = engine_of(system)
    wanted = engine.output(system, SIGNALS)
    kept = np.array([[0, 3]]) if version == 1 else np.array([[0, 3], [1, 4]])
    signals = lambda: [(SIGNALS, wanted, np.ones(SIGNALS.shape[:2]))]  # noqa: E731
    moments = lambda: engine.accumulate(engine.empty_moments(system), system, *signals()[0][::2], wanted)  # noqa: E731
    refitted = engine.refit_on_signals(system, kept, moments, signals, False, None)

    def error(reduced):
        return ((engine.output(reduced, SIGNALS) - wanted) ** 2).sum()

    assert error(refitted.system) < 0.7 * error(engine.truncate(system, kept).system)
    assert refitted.changed == ("readout" if version == 1 else "all")
    assert engine.same_dynamics(engine.truncate(system, kept).system, refitted.system, 0.0) == (version == 1)
    np.testing.assert_allclose(
        engine.output(engine.embed(system, refitted), SIGNALS), engine.output(refitted.system, SIGNALS), atol=1e-9
    )


def test_one_pole_a_head_makes_both_norms_rank_by_the_product_of_B_and_C():
    _, system = made(2)
    engine = engine_of(system)
    found = accumulate(empty_moments(system), system, SIGNALS)
    products = found.power[0] * found.power[1]
    for criterion in ("hinf", "h2"):
        energy = engine.energies(system, criterion, moments=lambda: found)
        np.testing.assert_array_equal(np.argsort(energy, axis=1), np.argsort(products, axis=1))


def test_what_has_no_meaning_is_refused():
    _, system = made(1)
    with pytest.raises(UnsupportedModelError, match="no poles, no norms"):
        diagonal(system)
    with pytest.raises(UsageError, match="--calibration"):
        engine_of(system).energies(system, "contribution")
    bad = system.replace(D=np.full(8, np.nan))
    with pytest.raises(InputError, match="D holds NaN"):
        engine_of(system).check(bad, "layer", True)
