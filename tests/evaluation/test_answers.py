"""Metrics of classes, of independent labels and of steps against scikit-learn; thresholds; what is not scored."""

import math

import numpy as np
import pytest
from sklearn import metrics as reference

from lastcli.errors import InputError, UsageError
from lastcli.evaluation.choice import choose_metric
from lastcli.evaluation.data import Split
from lastcli.evaluation.fitting import fit_split
from lastcli.evaluation.metrics import METRICS, SHARES, Metric
from lastcli.evaluation.significance import compare
from lastcli.evaluation.soundness import trivial_value
from lastcli.evaluation.tasks import task_of
from lastcli.families.base import Forward
from lastcli.report.text import is_share

N, L, K = 80, 6, 4
AVERAGES = ("micro", "macro")


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def of_labels(y, z, cut=0.5):
    """Every metric of independent labels, by scikit-learn; y, z (N, k)."""
    called = sigmoid(z) > cut
    found = {
        "subset_accuracy": reference.accuracy_score(y, called),
        "element_accuracy": 1 - reference.hamming_loss(y, called),
        "nll": np.mean([reference.log_loss(y[:, j], sigmoid(z[:, j])) for j in range(y.shape[1])]),
    }
    for average in AVERAGES:
        found[f"f1_{average}"] = reference.f1_score(y, called, average=average, zero_division=0)
        found[f"auroc_{average}"] = reference.roc_auc_score(y, z, average=average)
        found[f"average_precision_{average}"] = reference.average_precision_score(y, z, average=average)
    return found


def of_classes(y, z):
    answers = z.argmax(-1)
    nll = reference.log_loss(y, np.exp(z) / np.exp(z).sum(-1, keepdims=True), labels=range(z.shape[-1]))
    found = {"accuracy": reference.accuracy_score(y, answers), "nll": nll, "perplexity": math.exp(nll)}
    return found | {f"f1_{a}": reference.f1_score(y, answers, average=a, zero_division=0) for a in AVERAGES}


def measured(metric, outputs, y, lengths=None):
    statistics = metric.statistics(outputs, y, lengths)
    return metric.value(statistics.reshape(-1, statistics.shape[-1]))


def labels(rng, *shape):
    z = rng.normal(size=shape)
    return (z + rng.normal(size=shape) > 0.6).astype(int), z


@pytest.mark.parametrize("cut", [None, 0.3])
def test_independent_labels(cut):
    y, z = labels(np.random.default_rng(0), N, K)
    z = np.round(2 * z) / 2 + 0.01  # ties
    for name, wanted in of_labels(y, z, cut or 0.5).items():
        metric = Metric(name, labels=K, threshold=cut)
        assert measured(metric, z, y) == pytest.approx(wanted, rel=1e-9), name


def test_independent_labels_at_every_step_with_some_not_scored():
    rng = np.random.default_rng(1)
    y, z = labels(rng, N, L, K)
    lengths = rng.integers(1, L + 1, N)
    inside = np.arange(L) < lengths[:, None]
    for name, wanted in of_labels(y[inside], z[inside]).items():
        assert measured(Metric(name, sequence=True, labels=K), z, y, lengths) == pytest.approx(wanted), name
    y[:, :, 0] = np.where(rng.random((N, L)) < 0.5, -100, y[:, :, 0])
    kept = y[:, :, 0] >= 0
    wanted = np.mean(
        [reference.roc_auc_score(y[:, :, j][m], z[:, :, j][m]) for j, m in enumerate([kept, *3 * [kept | 1 > 0]])]
    )
    assert measured(Metric("auroc_macro", sequence=True, labels=K), z, y) == pytest.approx(wanted)


def test_classes_with_and_without_steps():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(N, L, 5))
    y = np.where(rng.random((N, L)) < 0.5, z.argmax(-1), rng.integers(0, 4, (N, L)))
    for name, wanted in of_classes(y[:, 0], z[:, 0]).items():
        if name != "perplexity":
            assert measured(Metric(name), z[:, 0], y[:, 0]) == pytest.approx(wanted), name
    y[rng.random((N, L)) < 0.3] = -100
    for name, wanted in of_classes(y[y >= 0], z[y >= 0]).items():
        metric = Metric(name, sequence=True)
        assert measured(metric, z, y) == pytest.approx(wanted), name
        statistics = metric.statistics(z, y)[:, 0]
        low, high = metric.interval(statistics)
        assert low < wanted < high
        assert low > 1 or name != "perplexity"


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("cut", [None, 0.2])
def test_two_classes_and_a_threshold(outputs, cut):
    rng = np.random.default_rng(3)
    y, z = labels(rng, N, L)
    logits = z[..., None] if outputs == 1 else np.stack([-z / 2, z / 2], -1)
    called = sigmoid(z) > (cut or 0.5)
    wanted = {"accuracy": reference.accuracy_score, "f1": reference.f1_score}
    for name, score in wanted.items():
        assert measured(Metric(name, threshold=cut), logits[:, 0], y[:, 0]) == pytest.approx(
            score(y[:, 0], called[:, 0])
        )
        whole = measured(Metric(name, sequence=True, threshold=cut), logits, y)
        assert whole == pytest.approx(score(y.ravel(), called.ravel()))
    found = measured(Metric("auroc", sequence=True), logits, y)
    assert found == pytest.approx(reference.roc_auc_score(y.ravel(), z.ravel()))
    assert measured(Metric("nll"), logits[:, 0], y[:, 0]) == pytest.approx(
        reference.log_loss(y[:, 0], sigmoid(z[:, 0]))
    )


@pytest.mark.parametrize("name", [*of_labels(*labels(np.random.default_rng(0), N, K))])
def test_two_models_of_labels_are_compared_on_the_same_examples(name):
    rng = np.random.default_rng(4)
    y = rng.integers(0, 2, (N, K))
    good, bad = (scale * y - scale / 2 + rng.normal(size=(N, K)) for scale in (4.0, 0.5))
    metric = Metric(name, labels=K)
    statistics = [metric.statistics(z, y)[:, 0] for z in (good, bad)]
    found = compare(metric, *statistics)
    assert found.drop == pytest.approx(float(metric.drop(*map(metric.value, statistics))))
    assert found.low > 0
    assert found.p_value < 0.01
    assert found.losses > found.wins
    same = compare(metric, statistics[0], statistics[0])
    assert (same.drop, same.p_value) == (0, 1)


def test_an_interval_of_a_ranking_resamples_whole_sequences():
    rng = np.random.default_rng(5)
    y, z = labels(rng, 12, L)
    metric = Metric("auroc", sequence=True)
    draws = metric.resampled(metric.statistics(z[..., None], y)[:, 0], seed=7)
    rows = np.random.default_rng(7).integers(0, 12, (3, 12))
    np.testing.assert_allclose(draws[:3], [reference.roc_auc_score(y[r].ravel(), z[r].ravel()) for r in rows])


def test_an_answer_that_looks_at_no_input():
    y, _ = labels(np.random.default_rng(6), N, K)
    y[:, 0] = np.arange(N) < 60
    split = Split(np.zeros((N, 3, 1), "f4"), y)
    share = y.mean(0)
    constant = np.broadcast_to(np.log(share / (1 - share)), y.shape)
    blind = of_labels(y, constant)
    for name in ("auroc_macro", "auroc_micro", "average_precision_macro", "average_precision_micro", "nll"):
        assert trivial_value(Metric(name, labels=K), split) == pytest.approx(blind[name]), name
    assert trivial_value(Metric("element_accuracy", labels=K), split) == pytest.approx(
        np.maximum(share, 1 - share).mean()
    )
    every = [[(m >> j) & 1 for j in range(K)] for m in range(2**K)]
    for name in ("f1_micro", "f1_macro", "subset_accuracy"):
        best = max(of_labels(y, np.broadcast_to(20.0 * np.array(m) - 10, y.shape))[name] for m in every)
        assert trivial_value(Metric(name, labels=K), split) == pytest.approx(best), name


def test_which_metrics_are_shares():
    assert {name for name in METRICS if is_share(name)} == set(SHARES)


MODEL = Forward(lambda *_: None, 2, K)
STEPS = Forward(lambda *_: None, 2, K, sequence=True)
X = np.zeros((N, L, 2), "f4")
RNG = np.random.default_rng(8)
ZEROS_AND_ONES = RNG.integers(0, 2, (N, K))


@pytest.mark.parametrize(
    ("y", "forward", "task"),
    [
        (ZEROS_AND_ONES, MODEL, "multilabel"),
        (ZEROS_AND_ONES.astype("f4"), MODEL, "multilabel"),
        (ZEROS_AND_ONES.astype(bool), MODEL, "multilabel"),
        (np.eye(K)[RNG.integers(0, K, N)], MODEL, None),
        (RNG.integers(0, K, N), MODEL, None),
        (RNG.integers(0, K, (N, L)), STEPS, None),
        (RNG.integers(0, 2, (N, L, K)), STEPS, "multilabel"),
        (RNG.integers(0, K, (N, L)), Forward(lambda *_: None, 2, K, "regression", sequence=True), "classification"),
        (RNG.normal(size=(N, L, K)), Forward(lambda *_: None, 2, K, "regression", sequence=True), None),
    ],
)
def test_labels_settle_the_task(y, forward, task):
    assert task_of(Split(X, y), forward, assumed=True) == task


@pytest.mark.parametrize(
    ("y", "forward", "says"),
    [
        (np.eye(K)[RNG.integers(0, K, N)], MODEL, r"argmax.*task=multilabel"),
        (RNG.normal(size=(N, K)), MODEL, "task=regression"),
        (ZEROS_AND_ONES + 1, Forward(lambda *_: None, 2, K, "multilabel"), "neither 0 nor 1"),
        (ZEROS_AND_ONES[:, :2], Forward(lambda *_: None, 2, K, "multilabel"), r"\(80, 4\), are needed"),
        (np.zeros((N, K), int), Forward(lambda *_: None, 2, K, "multilabel"), "all labels are 0"),
        (np.full((N, L), K), STEPS, "label 4 at"),
        (np.full((N, L), -100), STEPS, "no step has a label"),
    ],
)
def test_labels_that_do_not_fit(y, forward, says):
    with pytest.raises(InputError, match=says):
        fit_split(Split(X, y), forward)


def test_next_tokens_of_a_model_that_shifts_its_input_itself_are_its_tokens():
    tokens = RNG.integers(0, K, (5, L))
    for ahead in (0, 1):
        forward = Forward(lambda *_: None, K, K, sequence=True, generates=ahead)
        y = fit_split(Split(tokens, lengths=np.full(5, 4)), forward).y
        np.testing.assert_array_equal(y[:, : 4 - ahead], tokens[:, ahead:4])
        assert (y[:, 4 - ahead :] == -100).all()
    with pytest.raises(InputError, match="no labels"):
        fit_split(Split(tokens), Forward(lambda *_: None, K, K, sequence=True))


@pytest.mark.parametrize(
    ("name", "forward", "threshold", "says"),
    [
        ("f1", MODEL, None, "f1_micro or f1_macro"),
        ("accuracy", MODEL, 0.3, "largest of 4"),
        ("mse", MODEL, None, "use accuracy"),
        ("auroc", Forward(lambda *_: None, 2, 1), 0.3, "no decisions"),
        ("mse", Forward(lambda *_: None, 2, 1, "regression"), 0.3, "numbers"),
        ("perplexity", Forward(lambda *_: None, 2, K, "multilabel"), None, "multi-label"),
    ],
)
def test_metrics_and_thresholds_that_do_not_fit(name, forward, threshold, says):
    with pytest.raises(UsageError, match=says):
        choose_metric(name, forward, Split(X, np.arange(N) % 2), threshold=threshold)


def test_a_label_with_one_value_has_no_ranking():
    y = ZEROS_AND_ONES.copy()
    y[:, 2] = 0
    with pytest.raises(InputError, match="label 2 is 0"):
        choose_metric(None, Forward(lambda *_: None, 2, K, "multilabel"), Split(X, y))


def test_several_answers_a_step_are_so_many_steps():
    z, y = RNG.normal(size=(N, L, 3, K)), RNG.integers(0, K, (N, L, 3))
    y[:4, 1] = -100
    lengths = RNG.integers(1, L + 1, N)
    scored = (y >= 0) & (np.arange(L) < lengths[:, None])[..., None]
    metric = Metric("accuracy", sequence=True)
    found = metric.statistics(z, y, lengths)
    assert metric.value(found.reshape(N, -1)) == pytest.approx((z.argmax(-1) == y)[scored].mean())


@pytest.mark.parametrize(("name", "wins", "losses"), [("accuracy", 0, 1), ("fit", 0, 1), ("nll", 1, 0), ("mse", 1, 0)])
def test_of_two_numbers_the_lower_error_and_the_higher_share_is_nearer(name, wins, losses):
    found = compare(Metric(name, given=True), np.array([[0.5]]), np.array([[0.4]]))
    assert (found.wins, found.losses) == (wins, losses)


def test_labels_of_a_whole_vocabulary_are_not_counted_one_by_one():
    forward = Forward(lambda *_: None, 2, 5000)
    with pytest.raises(UsageError, match="f1_macro counts every class, and the model has 5000; use accuracy"):
        choose_metric("f1_macro", forward, Split(X, np.arange(N)))


def test_zeros_and_ones_may_be_stored_as_floats_and_are_not_targets():
    labels = Forward(lambda *_: None, 2, K, "multilabel")
    fitted = fit_split(Split(X, ZEROS_AND_ONES.astype("f4")), labels).y
    assert fitted.dtype.kind == "i"
    np.testing.assert_array_equal(fitted, ZEROS_AND_ONES)
    with pytest.raises(InputError, match="whole numbers for every output"):
        fit_split(Split(X, ZEROS_AND_ONES + 0.5), labels)
    with pytest.raises(InputError, match="for independent labels describe the model with --set task=multilabel"):
        fit_split(Split(X, ZEROS_AND_ONES), MODEL)
    steps = Forward(lambda *_: None, 2, K, "regression", sequence=True)
    assert task_of(Split(X, RNG.integers(0, 2, (N, L, K))), steps, assumed=True) == "multilabel"
    assert task_of(Split(X, RNG.integers(0, 2, (N, L, K))), steps, assumed=False) is None
