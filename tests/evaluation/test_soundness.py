"""Is there anything to compare with: outputs that are finite, and a model that beats an answer blind to its inputs."""

from __future__ import annotations

import dataclasses
import math

import ml_dtypes
import numpy as np
import pytest

from lastcli.errors import InputError
from lastcli.evaluation.data import Split
from lastcli.evaluation.metrics import Metric
from lastcli.evaluation.soundness import (
    beats_trivial,
    count_non_finite,
    first_non_finite,
    require_finite,
    trivial_value,
    what_is_wrong,
)
from lastcli.evaluation.sweep import Evaluation, evaluate_candidates
from tests.evaluation import models

X = np.zeros((5, 7, 1), np.float32)
Y = np.random.default_rng(0).standard_normal((5, 7, 2))


def found(metric: Metric, value: float, non_finite: int = 0) -> Evaluation:
    return Evaluation(metric, value, None, None, 5, np.zeros((5, 4)), non_finite=non_finite)


def test_the_value_of_a_model_with_nan_outputs_is_nan_and_its_examples_are_counted() -> None:
    layers = models.systems()
    wild = tuple(s.replace(C=np.where(np.arange(models.STATES) == 0, np.nan, s.C)) for s in layers)
    sound, spoilt = evaluate_candidates(
        models.forward(models.Counted()), models.parameters(), [layers, wild], models.split(), batch_size=8
    )
    assert (sound.non_finite, sound.finite) == (0, True)
    assert (spoilt.non_finite, spoilt.finite) == (23, False), "padded examples do not count"
    assert math.isnan(spoilt.value)
    assert spoilt.ci_low is None
    assert spoilt.metric.drop(sound.value, spoilt.value) == math.inf


def test_one_example_that_overflows_is_one() -> None:
    split = models.split()
    x = split.x.copy()
    x[4] = 3e38
    (result,) = evaluate_candidates(
        models.forward(models.Counted()), models.parameters(), [models.systems()], dataclasses.replace(split, x=x)
    )
    assert result.non_finite == 1
    assert not result.finite


def test_the_full_model_must_be_finite_and_the_tensor_to_blame_is_named() -> None:
    tensors = {"steps": np.array([3]), "in": np.ones(2, ml_dtypes.bfloat16), "out": np.array([[0.0, np.nan]])}
    with pytest.raises(InputError, match=r"m\.pt: .* 2 of 5 examples of t\.npz, since tensor out holds"):
        require_finite(found(Metric("mse"), math.nan, 2), "m.pt", "t.npz", tensors)
    with pytest.raises(InputError, match="every tensor that the forward pass reads is finite"):
        require_finite(found(Metric("mse"), math.nan, 2), "m.pt", "t.npz", {"in": np.ones(2)})
    with pytest.raises(InputError, match=r"fit on t\.npz is not a finite number"):
        require_finite(found(Metric("fit"), -math.inf), "m.pt", "t.npz", {})
    require_finite(found(Metric("mse"), 1.0), "m.pt", "t.npz", tensors)
    assert first_non_finite(tensors) == "tensor out holds NaN or infinity (first at [0, 1])"
    assert first_non_finite({"z": np.array([1j, complex(0, np.inf)])}) is not None
    assert first_non_finite({"h": np.array([1, np.inf], ml_dtypes.bfloat16)}) is not None
    assert "for 1 of 1 example of x" in what_is_wrong("m", 1, 1, "x", {})


def test_outputs_alone_are_counted_by_their_task() -> None:
    outputs = np.array([[0.0, -np.inf], [np.nan, 1.0], [1.0, 2.0]])
    assert count_non_finite(outputs, "classification") == 1
    assert count_non_finite(outputs, "regression") == 2
    late = np.array([[[0.0], [np.nan]]] * 2)
    assert count_non_finite(late, "regression") == 2
    assert count_non_finite(late, "regression", np.array([5, 6]), 3) == 1


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("lengths", [None, np.array([7, 6, 4, 5, 7])])
def test_the_mean_predictor_is_that_of_a_loop(warmup: int, lengths: np.ndarray | None) -> None:
    rows = [Y[i, t] for i in range(5) for t in range(warmup, 7 if lengths is None else lengths[i])]
    error = np.array(rows) - np.mean(rows, axis=0)
    split = Split(X, Y, lengths)
    wanted = {"mse": np.mean(error**2), "rmse": np.sqrt(np.mean(error**2)), "mae": np.mean(abs(error)), "fit": 0.0}
    for name, value in wanted.items():
        metric = Metric(name, warmup, True)
        assert trivial_value(metric, split) == pytest.approx(value, rel=1e-12)
        better, worse = (value + 1e-3, value - 1e-3) if name == "fit" else (value - 1e-3, value + 1e-3)
        assert beats_trivial(found(metric, better), split) is True
        assert beats_trivial(found(metric, worse), split) is False


def test_the_most_frequent_class_is_what_a_classifier_must_beat() -> None:
    split = Split(X, np.array([2, 0, 2, 1, 2]))
    assert trivial_value(Metric("accuracy"), split) == 0.6
    assert beats_trivial(found(Metric("accuracy"), 0.6), split) is False
    assert beats_trivial(found(Metric("accuracy"), 0.8), split) is True


def test_where_nothing_can_be_said() -> None:
    for split, name in ((Split(X), "accuracy"), (Split(X, np.ones((5, 2))), "mse")):
        assert trivial_value(Metric(name), split) is None
        assert beats_trivial(found(Metric(name), 0.0), split) is None
    assert trivial_value(Metric("mse"), Split(X, np.array([0.0, 0, 0, 0, 5]))) == pytest.approx(4.0)


def test_nothing_is_beaten_where_all_are_of_one_class() -> None:
    assert trivial_value(Metric("accuracy"), Split(X, np.zeros(5, int))) is None
    assert trivial_value(Metric("nll"), Split(X, np.full(5, 2))) is None
