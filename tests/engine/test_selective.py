"""Selective layers: scans, moments, the folded read-out and the layer-wise fit, against computations written out."""

import dataclasses

import numpy as np
import pytest

from lastcli.engine.engines import engine_of
from lastcli.engine.protocol import Reduction
from lastcli.engine.selective import drive, fit, mixer
from lastcli.engine.selective import moments as moments_module
from lastcli.engine.selective.criteria import mean_poles
from lastcli.engine.selective.moments import accumulate, empty_moments, maps_of, wide
from lastcli.engine.selective.readout import fold
from lastcli.engine.selective.system import SelectiveSystem
from lastcli.engine.system import diagonal
from lastcli.errors import InputError, UnsupportedModelError, UsageError
from lastcli.families import family_named
from tests.builders.mamba import language_model, mamba1, mamba1_heads_mixer, mamba2, rms, silu, softplus
from tests.families.rebuilding import config_of, layers_of, rebuilt, some_kept, systems_of
from tests.systems import system_of

SIGNALS = np.random.default_rng(2).normal(size=(5, 40, 6))


def made(version, **of):
    arrays = language_model(np.random.default_rng(version), version, layers=1, **of)
    family = family_named("mamba" if version == 1 else "mamba2")
    config = config_of(family, arrays, **({} if version == 1 else {"groups": 2}))
    (system,) = systems_of(family, arrays, config)
    return arrays, system


class Stateless(SelectiveSystem):
    """A form that nothing here knows."""

    states = 0


def in_heads():
    """The tensors and the layer of a mixer in two heads."""
    arrays, family = mamba1_heads_mixer(np.random.default_rng(3), "mixer."), family_named("mamba")
    (system,) = systems_of(family, arrays, config_of(family, arrays))
    return arrays, family, system


def states_of(arrays, u, norm=lambda part: part):
    """(L, d, N) states, (L, d) gates, x (L, d) and what makes step, B and C (L, r + 2N), written out.

    `norm` is what step, B and C pass first.
    """
    prefix = "backbone.layers.0.mixer."
    p = {name.removeprefix(prefix): a.astype(float) for name, a in arrays.items() if name.startswith(prefix)}
    d, N = p["A_log"].shape
    r = p["dt_proj.weight"].shape[1]
    xz = u @ p["in_proj.weight"].T
    x, h, found = xz[:, :d], np.zeros((d, N)), []
    padded = np.concatenate([np.zeros((3, d)), x])
    taps = p["conv1d.weight"][:, 0]
    x = silu(sum(padded[k : k + len(u)] * taps[:, k] for k in range(4)) + p["conv1d.bias"])
    parts = np.split(x @ p["x_proj.weight"].T, [r, r + N], axis=1)
    raw = np.concatenate([norm(part) for part in parts], axis=1)
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
    from lastcli.engine.selective import mixer, scan

    signals = np.random.default_rng(3).normal(size=(2, 2 * scan.CHUNK + 9, 6))
    wanted = engine_of(system).output(system, signals)
    monkeypatch.setattr(scan.jax, "default_backend", lambda: "gpu")
    mixer._mix.clear_cache()
    np.testing.assert_allclose(engine_of(system).output(system, signals), wanted, atol=1e-10)
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


@pytest.mark.parametrize("normed", [False, True])
def test_contributions_are_gated_energies(normed):
    arrays, system = made(1)
    ones = {"step_norm": np.ones(2), "B_norm": np.ones(5), "C_norm": np.ones(5)} if normed else {}
    norm = (lambda part: rms(part, np.ones(part.shape[-1]), 1e-6)) if normed else (lambda part: part)
    system = system.replace(**ones)
    found = accumulate(empty_moments(system), system, SIGNALS)
    assert found.gram is None or not normed  # norms leave no linear read-out to fit
    total = np.zeros(5)
    W = np.asarray(system.out_proj, float)
    for u in SIGNALS:
        h, gate, _, raw = states_of(arrays, u, norm)
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


def test_a_bias_of_the_last_projection_is_taken_off_before_anything_is_fitted():
    _, system = made(1)
    bias = np.linspace(-1, 2, 6)
    answers = engine_of(system).output(system, SIGNALS)
    plain, shifted = (
        accumulate(empty_moments(system), other, SIGNALS, None, answers + offset)
        for other, offset in ((system, 0), (system.replace(out_bias=bias), bias))
    )
    for name in ("cross", "direct_target", "energy"):
        np.testing.assert_allclose(getattr(shifted, name), getattr(plain, name), rtol=1e-9, atol=1e-12)
    maps, weights = np.asarray(maps_of(system), np.float64), np.ones(SIGNALS.shape[:2])
    plain, shifted = (
        drive._sums(wide(other), maps, SIGNALS, answers + offset, weights)[1]
        for other, offset in ((system, 0), (system.replace(out_bias=bias), bias))
    )
    np.testing.assert_allclose(shifted, plain, rtol=1e-4, atol=1e-3)


def test_the_last_projection_is_fitted_to_what_its_bias_leaves():
    _, system = made(1)
    bias = np.linspace(-1, 2, 6)
    answers = engine_of(system).output(system, SIGNALS) + bias
    spoilt = system.replace(out_bias=bias, out_proj=0.3 * np.asarray(system.out_proj))
    weights = np.ones(SIGNALS.shape[:2])
    found = fit.fit_projection(spoilt, lambda: [(SIGNALS, answers, weights)])
    left = ((engine_of(found).output(found, SIGNALS) - answers) ** 2).sum()
    assert left < 0.01 * ((engine_of(spoilt).output(spoilt, SIGNALS) - answers) ** 2).sum()


@pytest.mark.parametrize("version", [1, 2])
def test_A_moves_by_factors_and_everything_else_by_its_own_units(version):
    _, system = made(version)
    layer = engine_of(system).variables(system)
    zeros = {name: np.zeros(np.shape(array)) for name, array in layer.start.items()}
    for name in zeros:
        moved = layer.system({**zeros, name: zeros[name] + 0.5})
        before, after = (np.asarray(getattr(one, name), float) for one in (layer.system(zeros), moved))
        if name == "A":
            np.testing.assert_allclose(after, before * np.exp(0.5), rtol=1e-5)
        else:
            np.testing.assert_allclose(after, before + 0.5 * np.asarray(layer.units[name]), rtol=1e-4, atol=1e-6)
        others = [other for other in zeros if other != name]
        for other in others:
            np.testing.assert_allclose(getattr(moved, other), getattr(layer.base, other), rtol=1e-5, atol=1e-7)


def test_without_steps_that_count_nothing_is_fitted():
    _, system = made(1)
    assert fit.fit_projection(system, list) is system
    maps = np.concatenate([system.to_C, system.to_B, system.to_step])
    np.testing.assert_allclose(drive._drive(system, maps, list) @ maps, system.to_B, atol=1e-12)
    _, system = made(2)
    assert fit.fit_layer(system, lambda: [(SIGNALS, SIGNALS, np.zeros(SIGNALS.shape[:2]))]) is system


def test_a_batch_that_does_not_count_ends_no_reading(monkeypatch):
    weights = np.ones(SIGNALS.shape[:2])
    weights[:2] = 0
    batches = [(SIGNALS[:2], SIGNALS[:2], weights[:2]), (SIGNALS[2:], SIGNALS[2:], weights[2:])]
    np.testing.assert_array_equal(fit._held(batches)[0], SIGNALS[2:].astype(np.float32))
    monkeypatch.setattr(fit, "SIGNAL_BYTES", 8 * 40 * 6 * 4)  # four sequences

    def endless():
        while True:
            yield SIGNALS[2:], SIGNALS[2:], weights[2:]

    assert len(fit._held(endless())[0]) == 4


def test_a_norm_before_the_gate():
    _, system = made(2)
    y, gate = np.random.default_rng(4).normal(size=(2, 1, 3, 8))
    for first in (False, True):
        parts = (y if first else y * gate).reshape(1, 3, 2, 4)
        wanted = rms(parts, np.ones(4)).reshape(y.shape) * np.asarray(system.norm) * (gate if first else 1)
        found = mixer.normalised(system.replace(norm_first=first), y, gate)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


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


def test_states_are_chosen_anew_on_the_signals():
    _, system = made(1)
    engine = engine_of(system)
    wanted = engine.output(system, SIGNALS)
    found = engine.accumulate(engine.empty_moments(system), system, SIGNALS, np.ones(SIGNALS.shape[:2]), wanted)
    order = engine.eliminate(system, found).order
    signals = lambda: [(SIGNALS, wanted, np.ones(SIGNALS.shape[:2]))]  # noqa: E731
    worst = np.sort(order[:, :2], axis=1)
    stay, anew = (
        engine.refit_on_signals(system, worst, lambda: found, signals, again, None).system for again in (False, True)
    )
    errors = [((engine.output(reduced, SIGNALS) - wanted) ** 2).sum() for reduced in (anew, stay)]
    assert errors[0] < 0.9 * errors[1]


def test_heads_are_mixers_side_by_side():
    """Every head as a Mamba 1 of its own channels; rows of the first projection go x, gate, x, gate."""
    arrays, _, system = in_heads()
    p = {name.removeprefix("mixer."): array for name, array in arrays.items()}
    wanted = 0
    for head, own in enumerate((slice(0, 4), slice(4, 8))):
        one = {
            "A_log": p["A_log"][head],
            "D": p["D"][head],
            "in_proj.weight": np.concatenate([p["in_proj.weight"][0::2][own], p["in_proj.weight"][1::2][own]]),
            "conv1d.weight": p["conv1d.weight"][own],
            "conv1d.bias": p["conv1d.bias"][own],
            "x_proj.weight": p["x_proj_weight"][head],
            "dt_proj.weight": p["dt_proj_weight"][head],
            "dt_proj.bias": p["dt_proj_bias"][head],
            "out_proj.weight": p["out_proj.weight"][:, own],
        }
        wanted = wanted + np.stack([mamba1(one, "", u) for u in SIGNALS])
    np.testing.assert_allclose(engine_of(system).output(system, SIGNALS), wanted, atol=1e-6)


def test_heads_put_back_in_their_places_do_nothing_elsewhere():
    _, _, system = in_heads()
    engine, kept = engine_of(system), np.array([[0, 2, 4], [1, 2, 3]])
    reduction = engine.truncate(system, kept)
    whole = engine.embed(system, reduction)
    np.testing.assert_array_equal(engine.inert(whole), [[n not in row for n in range(5)] for row in kept])
    for name in ("to_B", "to_C", "A"):
        assert np.shape(getattr(whole, name)) == np.shape(getattr(system, name))
        assert np.isfinite(getattr(whole, name)).all()
    again = engine.truncate(whole, kept).system
    assert engine.same_dynamics(again, reduction.system, 0.0)
    np.testing.assert_array_equal(again.to_C, reduction.system.to_C)


@pytest.mark.parametrize("changed", ["readout", "all"])
def test_refitted_heads_are_read_back_as_they_were_written(changed):
    arrays, family, system = in_heads()
    kept = some_kept(system, 3)
    reduced = engine_of(system).truncate(system, kept).system
    other = {name: 1.5 * np.asarray(getattr(reduced, name)) for name in ("to_C", "D", "out_proj")}
    if changed == "all":
        other |= {name: 0.5 * np.asarray(getattr(reduced, name)) for name in ("to_B", "A")}
    wanted = reduced.replace(**other)
    config = config_of(family, arrays)
    new = rebuilt(family, arrays, config, [Reduction(kept, wanted, changed)])
    assert [layer.states for layer in layers_of(family, new, config)] == [3]
    (found,) = systems_of(family, new, config)
    for field in dataclasses.fields(wanted):
        if getattr(wanted, field.name) is not None:
            np.testing.assert_allclose(getattr(found, field.name), getattr(wanted, field.name), rtol=1e-6)


@pytest.mark.parametrize("version", [1, 2, "heads"])
def test_kept_states_are_found_by_what_drives_them(version):
    system = in_heads()[2] if version == "heads" else made(version)[1]
    engine, kept = engine_of(system), np.array([[0, 2, 3], [1, 2, 4]])[: system.sets]
    small = engine.truncate(system, kept).system
    np.testing.assert_array_equal(engine.locate(system, small), kept)
    assert "not ORIGINAL's" in engine.locate(system, small.replace(to_B=1.1 * np.asarray(small.to_B)))
    narrow = small.replace(out_proj=np.asarray(small.out_proj)[:-1])
    assert engine.locate(system, narrow) == "the layer has another width"


def test_dynamics_agree_up_to_what_is_allowed():
    _, system = made(1)
    engine, near = engine_of(system), system.replace(A=np.asarray(system.A) * (1 + 1e-9))
    assert engine.same_dynamics(system, near, 1e-6)
    assert not engine.same_dynamics(system, near, 0.0)
    assert not engine.same_dynamics(system, engine.truncate(system, np.array([[0, 2]])).system, 1e-6)
    assert not engine.same_dynamics(system, system.replace(in_bias=np.ones(16)), 1e-6)


def test_magnitudes_without_stored_parameters_are_those_of_the_rows():
    _, system = made(2)
    wanted = (np.asarray(system.to_B) ** 2).sum(axis=2) + (np.asarray(system.to_C) ** 2).sum(axis=2)
    np.testing.assert_allclose(engine_of(system).energies(system, "magnitude"), wanted)


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
    with pytest.raises(InputError, match="not finite; check the data"):
        accumulate(empty_moments(system), system, np.full((1, 3, 6), np.inf))
    heads = in_heads()[2]
    with pytest.raises(TypeError, match="no moments of a S6HeadsSystem"):
        empty_moments(heads)
    with pytest.raises(TypeError):
        engine_of(heads).refit(heads, np.array([[0], [1]]), None, list)
    unknown = Stateless(out_proj=np.ones((6, 8), "f4"), out_bias=None, D=np.ones(8, "f4"))
    for computed in (lambda: mixer.mix(unknown, SIGNALS), lambda: mixer.inner_of(unknown, SIGNALS),
                     lambda: mean_poles(unknown)):  # fmt: skip
        with pytest.raises(TypeError, match="Stateless"):
            computed()


def test_what_drives_the_states_can_be_fitted_in_selective_layers_alone():
    """Elsewhere B is given by the poles' own search, or fixed."""
    assert made(1)[1].drivable is True
    assert system_of("mimo").drivable is False


def test_poles_read_back_are_the_systems_own_only_where_they_are_the_same():
    """A is stored as a logarithm, which gives it back but for rounding."""
    _, system = made(1)
    engine, reduction = engine_of(system), engine_of(system).truncate(system, np.array([[0, 3]]))
    own = np.asarray(reduction.system.A)
    near, far = (reduction.system.replace(A=own * factor) for factor in (1 + 1e-14, 1 + 1e-9))
    assert engine.stored(system, reduction, near).A is reduction.system.A
    assert engine.stored(system, reduction, far).A is far.A


def test_the_last_projection_is_pulled_towards_the_old_one_by_the_ridge_of_its_features(monkeypatch):
    """Written out: Σ w ‖y - W f‖² + pull ‖W - W₀‖², pull = (ε + 1/N) times the features' mean square, times N."""
    from lastcli.engine.selective import fit

    monkeypatch.setattr(fit, "RIDGE", 0.1)
    _, system = made(1)
    f = np.asarray(fit._before_projection(system, SIGNALS)).reshape(-1, system.channels)
    y = np.random.default_rng(5).normal(size=(f.shape[0], system.inputs))
    shape = SIGNALS.shape[:2]
    found = fit.fit_projection(system, lambda: [(SIGNALS, y.reshape(*shape, -1), np.ones(shape))])
    old, pull = np.asarray(system.out_proj, float), (0.1 + 1 / len(f)) * (f**2).mean() * len(f)
    rows = np.concatenate([f, np.sqrt(pull) * np.eye(f.shape[1])])
    wanted = np.linalg.lstsq(rows, np.concatenate([y, np.sqrt(pull) * old.T]), rcond=None)[0].T
    np.testing.assert_allclose(found.out_proj, wanted, atol=1e-5)
