"""Metrics against their definitions, intervals and tests against SciPy and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from lastcli.errors import InputError, UsageError
from lastcli.evaluation.choice import choose_metric
from lastcli.evaluation.data import Split
from lastcli.evaluation.metrics import Metric, bootstrap_sums, wilson_interval
from lastcli.evaluation.significance import compare, mcnemar_exact, paired_difference_interval
from lastcli.families.base import Forward

N, L, P = 25, 30, 2
GENERATOR = np.random.default_rng(0)
TARGETS = GENERATOR.standard_normal((N, L, P)) + 3
OUTPUTS = TARGETS + 0.3 * GENERATOR.standard_normal((N, L, P))


def units(metric: Metric, outputs: np.ndarray, y: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    center = metric.target_mean(Split(outputs, y, lengths))
    found = metric.statistics(outputs, y, lengths, center)
    return found.reshape(-1, found.shape[-1])


def by_definition(name: str, outputs: np.ndarray, y: np.ndarray) -> float:
    """The metric of all kept (steps, P) rows at once."""
    if name == "mae":
        return float(sk.mean_absolute_error(y, outputs))
    if name == "fit":
        return float(100 * (1 - np.linalg.norm(y - outputs) / np.linalg.norm(y - y.mean(0))))
    mse = float(sk.mean_squared_error(y, outputs))
    return mse if name == "mse" else mse**0.5


@pytest.mark.parametrize("blocks", [1, 7])
@pytest.mark.parametrize("warmup", [0, 11])
@pytest.mark.parametrize("name", ["mse", "rmse", "mae", "fit"])
def test_errors_are_those_of_the_definition(name: str, warmup: int, blocks: int) -> None:
    metric = Metric(name, warmup, True, blocks)
    found = metric.value(units(metric, OUTPUTS, TARGETS))
    wanted = by_definition(name, OUTPUTS[:, warmup:].reshape(-1, P), TARGETS[:, warmup:].reshape(-1, P))
    assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("name", ["mse", "fit"])
def test_padded_steps_do_not_count(name: str) -> None:
    lengths = np.arange(N) % 20 + 5
    kept = (np.arange(L) < lengths[:, None]) & (np.arange(L) >= 3)
    spoilt = np.where(kept[..., None], OUTPUTS, np.inf)
    metric = Metric(name, 3, True)
    found = metric.value(units(metric, spoilt, TARGETS, lengths))
    assert found == pytest.approx(by_definition(name, OUTPUTS[kept], TARGETS[kept]), rel=1e-6)


@pytest.mark.parametrize("name", ["mse", "fit"])
def test_one_output_a_sequence(name: str) -> None:
    metric = Metric(name)
    found = metric.value(units(metric, OUTPUTS[:, 0], TARGETS[:, 0]))
    assert found == pytest.approx(by_definition(name, OUTPUTS[:, 0], TARGETS[:, 0]), rel=1e-6)


@pytest.mark.parametrize(("name", "higher"), [("accuracy", True), ("fit", True), ("mse", False), ("mae", False)])
def test_which_way_is_better(name: str, higher: bool) -> None:
    metric = Metric(name)
    assert metric.higher_is_better == higher
    assert (metric.drop(0.9, 0.8) > 0) == higher


def test_accuracy_never_counts_nan_as_right() -> None:
    outputs = np.array([[0.1, 0.9], [0.8, 0.2], [np.nan, 0.0], [-np.inf, 0.0]])
    found = units(Metric("accuracy"), outputs, np.array([1, 1, 0, 1]))
    np.testing.assert_array_equal(found[:, 0], [1, 0, 0, 1])
    assert Metric("accuracy").value(found) == 0.5


def test_statistics_are_the_same_under_jax() -> None:
    import jax
    import jax.numpy as jnp

    metric = Metric("mse", 4, True, 5)
    lengths = np.full(N, 20)
    found = jax.jit(lambda a, b, c: metric.statistics(a, b, c, xp=jnp))(OUTPUTS, TARGETS, lengths)
    np.testing.assert_allclose(found, metric.statistics(OUTPUTS, TARGETS, lengths), rtol=2e-5, atol=1e-4)


@pytest.mark.parametrize(("successes", "n"), [(0, 12), (12, 12), (294, 300), (1, 7), (5000, 10000)])
def test_wilson(successes: int, n: int) -> None:
    wanted = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, n) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@pytest.mark.parametrize("n", [1, 3, 10, 49, 300])
def test_wilson_ends_exactly_where_a_share_does(n: int) -> None:
    assert wilson_interval(0, n)[0] == 0.0
    assert wilson_interval(n, n)[1] == 1.0


@pytest.mark.filterwarnings("error")
def test_intervals_of_what_is_not_finite() -> None:
    # Σ|e|, Σe², Σ(y - mean)², count of each unit
    some = np.array([[0, 0, 0, 1]] * 5 + [[0.5, 0.25, 1, 1]], float)
    assert Metric("fit").interval(some) == (50.0, 50.0), "resamples without any spread say nothing"
    assert Metric("fit").interval(some[:5]) == (None, None)
    errors = np.ones((30, 4))
    errors[3] = [np.inf, np.inf, 1, 1]
    assert Metric("mse").interval(errors) == (None, None)
    found = compare(Metric("mse"), np.ones((30, 4)), errors)
    assert (found.drop, found.upper) == (np.inf, np.inf)


def test_bootstrap_interval_is_close_to_the_normal_one() -> None:
    errors = np.random.default_rng(3).exponential(size=(400, 1))
    sums = bootstrap_sums(errors)
    standard_error = errors.std() / np.sqrt(400)
    assert np.std(sums / 400) == pytest.approx(standard_error, rel=0.08)
    assert sums.mean() == pytest.approx(errors.sum(), rel=0.01)
    np.testing.assert_array_equal(sums, bootstrap_sums(errors))


def test_bootstrap_covers_the_truth() -> None:
    metric, inside = Metric("mse"), 0
    for seed in range(150):
        errors = np.random.default_rng(seed).standard_normal((60, 1))
        low, high = metric.interval(units(metric, errors, np.zeros((60, 1))))
        assert low is not None
        assert high is not None
        inside += low <= 1.0 <= high
    assert 0.85 <= inside / 150 <= 0.99


@pytest.mark.parametrize("name", ["mse", "fit"])
def test_outputs_every_so_many_steps_count_within_the_length(name: str) -> None:
    step, x = 7, np.zeros((N, 7 * L + 3, 1))
    lengths = np.arange(N) % 20 * 11 + step
    forward = Forward(lambda *_: (None, ()), 1, P, task="regression", sequence=True, output_step=step)
    metric = choose_metric(name, forward, Split(x, TARGETS, lengths))
    found = metric.value(units(metric, OUTPUTS, TARGETS, lengths))
    # output j is that of step 7 (j + 1) - 1
    kept = (np.arange(L) + 1) * step - 1 < lengths[:, None]
    assert found == pytest.approx(by_definition(name, OUTPUTS[kept], TARGETS[kept]), rel=1e-6)
    with pytest.raises(InputError, match="with 30 outputs"):
        choose_metric(name, forward, Split(x, TARGETS), warmup=L)


def test_one_unit_has_no_interval() -> None:
    metric = Metric("mse")
    assert metric.interval(np.ones((1, 4))) == (None, None)
    assert compare(metric, np.ones((1, 4)), np.ones((1, 4))).upper is None


def test_few_sequences_are_cut_into_blocks() -> None:
    forward = Forward(lambda *_: (None, ()), 1, P, task="regression", sequence=True)
    metric = choose_metric(None, forward, Split(OUTPUTS[:1], TARGETS[:1]), warmup=5)
    assert metric.blocks == 5
    found = units(metric, OUTPUTS[:1], TARGETS[:1])
    assert found[:, 3].tolist() == [10.0] * 5
    low, high = metric.interval(found)
    assert low is not None
    assert high is not None
    assert low < metric.value(found) < high


@pytest.mark.parametrize(("n", "blocks"), [(19, 5), (20, 1)])
def test_many_sequences_are_units_themselves(n: int, blocks: int) -> None:
    forward = Forward(lambda *_: (None, ()), 1, P, task="regression", sequence=True)
    assert choose_metric(None, forward, Split(OUTPUTS[:n], TARGETS[:n])).blocks == blocks


def test_a_warm_up_must_be_shorter_than_the_shortest_sequence() -> None:
    forward = Forward(lambda *_: (None, ()), 1, P, task="regression", sequence=True)
    lengths = np.full(N, L)
    lengths[4] = 7
    split = Split(OUTPUTS, TARGETS, lengths)
    assert choose_metric(None, forward, split, warmup=6).warmup == 6
    with pytest.raises(InputError, match="a warm-up of 7 leaves nothing of sequences with 7 outputs"):
        choose_metric(None, forward, split, warmup=7)


@pytest.mark.parametrize(
    ("name", "baseline", "value", "drop"),
    [("accuracy", 0.9, 0.85, 0.05), ("mse", 0.2, 0.25, 0.25), ("fit", 95.0, 94.0, 0.01), ("mse", 0.0, 0.0, 0.0)],
)
def test_drops(name: str, baseline: float, value: float, drop: float) -> None:
    assert Metric(name).drop(baseline, value) == pytest.approx(drop)


def test_rise_from_zero_is_infinite() -> None:
    assert Metric("mse").drop(0.0, 0.1) == np.inf


@pytest.mark.parametrize(("losses", "wins"), [(0, 0), (5, 1), (1, 5), (3, 3), (0, 7), (400, 300)])
def test_mcnemar(losses: int, wins: int) -> None:
    wanted = stats.binomtest(losses, losses + wins, 0.5).pvalue if losses + wins else 1.0
    assert mcnemar_exact(losses, wins) == pytest.approx(wanted, rel=1e-9)


def test_paired_interval_without_any_difference() -> None:
    z2 = stats.norm.ppf(0.975) ** 2
    low, high = paired_difference_interval(0, 0, 300)
    assert (low, high) == pytest.approx((-z2 / (300 + z2), z2 / (300 + z2)))


def test_paired_interval_mirrors() -> None:
    low, high = paired_difference_interval(9, 2, 80)
    assert paired_difference_interval(2, 9, 80) == pytest.approx((-high, -low))
    assert low < 7 / 80 < high


@pytest.mark.parametrize(("lost", "won", "n"), [(0.02, 0.01, 300), (0.05, 0.0, 200), (0.1, 0.08, 100)])
def test_paired_interval_covers_the_truth(lost: float, won: float, n: int) -> None:
    generator, inside, below = np.random.default_rng(0), 0, 0
    for _ in range(400):
        losses, wins, _ = generator.multinomial(n, [lost, won, 1 - lost - won])
        low, high = paired_difference_interval(int(losses), int(wins), n)
        inside += low <= lost - won <= high
        below += paired_difference_interval(int(losses), int(wins), n, 0.9)[1] >= lost - won
    assert inside / 400 >= 0.92
    assert below / 400 >= 0.92


def test_comparison_of_accuracies() -> None:
    baseline, model = np.ones((200, 1)), np.ones((200, 1))
    baseline[:3] = 0
    model[10:22] = 0
    found = compare(Metric("accuracy"), baseline, model)
    assert (found.losses, found.wins) == (12, 3)
    assert found.drop == pytest.approx(9 / 200)
    assert found.p_value == pytest.approx(stats.binomtest(3, 15, 0.5).pvalue)
    assert found.low is not None
    assert found.high is not None
    assert found.upper is not None
    assert found.low < found.drop < found.upper < found.high


def test_comparison_of_errors_is_paired() -> None:
    generator = np.random.default_rng(1)
    errors = generator.exponential(size=500)
    baseline = np.stack([errors, errors, np.ones(500), np.ones(500)], -1)
    worse = baseline * [1, 1.05, 1, 1]
    found = compare(Metric("mse"), baseline, worse)
    # every example is worse by the same factor: unpaired resamples would not see it
    assert found.low == pytest.approx(0.05, abs=1e-9)
    assert found.upper == pytest.approx(0.05, abs=1e-9)
    assert found.p_value < 0.01
    assert compare(Metric("mse"), baseline, baseline).p_value == 1.0


@pytest.mark.parametrize(
    ("name", "task", "sequence", "warmup", "error", "message"),
    [
        ("acuracy", "classification", False, 0, UsageError, "did you mean accuracy"),
        ("mse", "classification", False, 0, UsageError, "use accuracy"),
        ("accuracy", "regression", False, 0, UsageError, "use mse"),
        ("mse", "regression", False, 5, UsageError, "output at every step"),
        ("mse", "regression", True, L, InputError, "leaves nothing"),
        ("mse", "regression", True, -1, UsageError, "warm-up"),
    ],
)
def test_metrics_that_do_not_fit(
    name: str, task: str, sequence: bool, warmup: int, error: type[Exception], message: str
) -> None:
    forward = Forward(lambda *_: (None, ()), 1, P, task=task, sequence=sequence)
    with pytest.raises(error, match=message):
        choose_metric(name, forward, Split(OUTPUTS, TARGETS), warmup=warmup)


def test_outputs_that_are_not_finite_are_counted_where_they_count() -> None:
    classes = np.array([[0.1, 0.9], [np.nan, 0.0], [-np.inf, 0.0], [np.inf, 0.0], [-np.inf, -np.inf]])
    np.testing.assert_array_equal(Metric("accuracy").finite(classes), [True, False, True, False, False])
    values = np.zeros((4, 6, 2))
    values[0, 0, 1], values[1, 5, 0], values[2, 3, 0] = np.nan, np.inf, -np.inf
    lengths = np.array([6, 5, 6, 6])
    metric = Metric("mse", warmup=1, sequence=True)
    np.testing.assert_array_equal(metric.finite(values, lengths), [True, True, False, True])
    np.testing.assert_array_equal(metric.finite(values), [True, False, False, True])
    np.testing.assert_array_equal(Metric("mse").finite(values[:, 0]), [False, True, True, True])
    # an output every third step: 5 true steps have one of them, 6 have two
    coarse = Metric("mse", sequence=True, step=3)
    late = np.array([[[0.0], [np.nan]]] * 2)
    np.testing.assert_array_equal(coarse.finite(late, np.array([5, 6])), [True, False])


@pytest.mark.parametrize("name", ["accuracy", "mse", "rmse", "mae", "fit"])
def test_a_value_that_is_no_number_has_lost_everything(name: str) -> None:
    assert Metric(name).drop(0.5, np.nan) == np.inf
    np.testing.assert_array_equal(Metric(name).drop(np.ones(2), np.array([1.0, np.nan])), [0, np.inf])


@pytest.mark.parametrize("n", [1, 12])
def test_paired_interval_where_only_one_of_two_models_is_ever_right(n: int) -> None:
    assert paired_difference_interval(0, n, n)[0] == -1.0
    assert paired_difference_interval(n, 0, n)[1] == pytest.approx(1.0)
