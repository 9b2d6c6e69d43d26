"""The sweep: one program, right numbers, independent candidates, several devices."""

from __future__ import annotations

import subprocess
import sys

import jax
import numpy as np
import pytest

from lastcli.errors import InputError, UsageError
from lastcli.evaluation import passes, sweep
from lastcli.evaluation.passes import Runner, choose_batch_size, computable, memory_errors, model_outputs
from lastcli.evaluation.significance import compare
from lastcli.evaluation.sweep import evaluate_candidates
from lastcli.parallel import processes
from lastcli.parallel.devices import local_mesh
from tests.evaluation import models

KEPT = (6, 5, 4, 3, 2, 1, 6)


class Bar:
    def __init__(self) -> None:
        self.done = 0

    def advance(self, n: int) -> None:
        self.done += n


@pytest.fixture(scope="module")
def swept() -> tuple[models.Counted, list, Bar]:
    architecture, bar = models.Counted(), Bar()
    candidates = [models.masked(models.systems(), kept) for kept in KEPT]
    found = evaluate_candidates(
        models.forward(architecture),
        models.parameters(),
        candidates,
        models.split(),
        batch_size=8,
        progress=bar,
        compare_outputs=True,
    )
    return architecture, found, bar


def test_one_program_for_all_candidates(swept: tuple[models.Counted, list, Bar]) -> None:
    architecture, _, bar = swept
    assert architecture.traces == 1
    assert bar.done == 23 * len(KEPT)


def test_what_is_candidate_0_value_for_value_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ratio of 0 is the original."""
    ran, real, bar = [], sweep.Program.__call__, Bar()

    def counted(program, *arguments):
        ran.append(1)
        return real(program, *arguments)

    monkeypatch.setattr(sweep.Program, "__call__", counted)
    whole = models.systems()
    again = models.masked(whole, 6)
    other = [whole[0].replace(C=np.where(whole[0].C.flat[0] == whole[0].C, whole[0].C + 1e-7, whole[0].C)), *whole[1:]]
    found = evaluate_candidates(
        models.forward(models.Counted()),
        models.parameters(),
        [whole, again, other, whole],
        models.split(),
        batch_size=8,
        progress=bar,
        compare_outputs=True,
    )
    assert len(ran) == 2 * 3
    assert bar.done == 23 * 4
    for same in (found[1], found[3]):
        assert (same.value, same.ci_low, same.max_difference) == (found[0].value, found[0].ci_low, 0.0)
        np.testing.assert_array_equal(same.statistics, found[0].statistics)
    assert found[2].max_difference > 0


def test_the_first_sweep_of_a_process_knows_a_ratio_of_0_as_well() -> None:
    """Systems become pytrees when the first program is made for them, and are compared before that."""
    program = (
        "import lastcli\n"
        "from lastcli.evaluation.programs import Program\n"
        "ran, real = [], Program.__call__\n"
        "def counted(program, *arguments):\n"
        "    ran.append(1)\n"
        "    return real(program, *arguments)\n"
        "Program.__call__ = counted\n"
        "found = lastcli.sweep('bundled', ratios='0:0.2:0.1', limit='16', batch_size=16)\n"
        "print(len(ran), [row.drop for row in found.rows][:1])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "3 [0.0]"


def test_values_are_those_of_a_plain_recurrence(swept: tuple[models.Counted, list, Bar]) -> None:
    _, found, _ = swept
    split, full = models.split(), None
    for kept, evaluation in zip(KEPT, found, strict=True):
        outputs = models.reference(models.parameters(), models.masked(models.systems(), kept), split.x)
        right = outputs.argmax(1) == split.y
        np.testing.assert_array_equal(evaluation.statistics[:, 0], right)
        assert evaluation.value == pytest.approx(right.mean())
        full = outputs if full is None else full
        assert evaluation.max_difference == pytest.approx(np.abs(outputs - full).max(), abs=2e-5)
        assert evaluation.mean_difference == pytest.approx(np.abs(outputs - full).mean(), abs=2e-5)
        assert evaluation.n == 23
    assert {round(e.value, 6) for e in found} != {round(found[0].value, 6)}, "masks must matter in this test"


def test_a_candidate_does_not_depend_on_the_others(swept: tuple[models.Counted, list, Bar]) -> None:
    architecture, found, _ = swept
    alone = evaluate_candidates(
        models.forward(architecture), models.parameters(), [models.systems()], models.split(), batch_size=8
    )[0]
    np.testing.assert_array_equal(alone.statistics, found[0].statistics)
    np.testing.assert_array_equal(found[0].statistics, found[-1].statistics)
    assert architecture.traces == 1, "the same model and shapes must not be compiled again"
    assert found[-1].max_difference == 0.0
    assert compare(found[0].metric, found[0].statistics, found[-1].statistics).p_value == 1.0


def test_regression_over_time_with_lengths() -> None:
    architecture = models.Counted(sequence=True)
    generator = np.random.default_rng(0)
    y = generator.standard_normal((5, 9, models.CLASSES)).astype(np.float32)
    lengths = np.array([9, 4, 7, 5, 9])
    split = models.split(5, y=y, lengths=lengths)
    outputs = models.reference(models.parameters(), models.systems(), split.x, sequence=True)
    kept = (np.arange(9) < lengths[:, None]) & (np.arange(9) >= 2)
    from lastcli.evaluation.choice import choose_metric

    forward = models.forward(architecture, "regression")
    metric = choose_metric("mse", forward, split, warmup=2)
    (found,) = evaluate_candidates(forward, models.parameters(), [models.systems()], split, metric, batch_size=2)
    assert found.value == pytest.approx(np.mean((outputs - y)[kept] ** 2), rel=1e-4)
    assert found.ci_low is not None
    assert found.ci_low < found.value


def test_outputs_come_in_order_and_without_padding() -> None:
    split = models.split(7, lengths=np.array([9, 4, 7, 5, 9, 1, 2]))
    forward = models.forward(models.Counted())
    found = list(model_outputs(forward, models.parameters(), models.systems(), split.without_labels(), batch_size=4))
    assert [len(part) for part in found] == [4, 3]
    wanted = models.reference(models.parameters(), models.systems(), split.x, split.lengths)
    np.testing.assert_allclose(np.concatenate(found), wanted, rtol=1e-4, atol=1e-5)


def test_half_precision_parameters_are_computed_in_float32() -> None:
    params = {name: array.astype(np.float16) for name, array in models.parameters().items()}
    forward = models.forward(models.Counted())
    (found,) = model_outputs(forward, params, models.systems(), models.split(4), batch_size=4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, models.reference(params, models.systems(), models.split(4).x), atol=1e-4)


def test_passes_side_by_side_are_bounded_by_cores_and_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "cores", lambda: 64)
    runner, split, systems = Runner(models.forward(models.Counted()), {}), models.split(), models.systems()
    assert runner.at_once(8, split, systems) == 64
    each = 4 * 8 * split.steps * max(system.width for system in systems)
    monkeypatch.setattr(passes, "SIDE_BY_SIDE_BYTES", 3 * each)
    assert runner.at_once(8, split, systems) == 3
    assert runner.at_once(800, split, systems) == 1


@pytest.mark.parametrize(("asked", "threads"), [(None, True), (8, False)])
def test_a_batch_size_that_was_asked_for_is_all_that_is_in_memory(
    asked: int | None, threads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def counted(function, items, at_once):
        seen.append(at_once)
        return map(function, items)

    monkeypatch.setattr(sweep, "side_by_side", counted)
    monkeypatch.setattr(passes, "cores", lambda: 4)
    forward = models.forward(models.Counted())
    evaluate_candidates(forward, models.parameters(), [models.systems()], models.split(), batch_size=asked)
    assert seen == [4 if threads else 1]


def test_refusals() -> None:
    forward = models.forward(models.Counted())
    with pytest.raises(UsageError, match="no ratio"):
        evaluate_candidates(forward, models.parameters(), [], models.split())
    with pytest.raises(UsageError, match="batch size"):
        evaluate_candidates(forward, models.parameters(), [models.systems()], models.split(), batch_size=0)
    with pytest.raises(UsageError, match="use accuracy"):
        evaluate_candidates(forward, models.parameters(), [models.systems()], models.split(), "mse")
    with pytest.raises(InputError, match="out of range"):
        evaluate_candidates(forward, models.parameters(), [models.systems()], models.split(y=np.arange(23)))


def test_memory_that_runs_out_is_a_sentence() -> None:
    def too_large(*_: object) -> tuple[object, tuple]:
        raise MemoryError

    forward = models.forward(models.Counted())
    forward = type(forward)(too_large, models.FEATURES, models.CLASSES)
    with pytest.raises(UsageError, match="smaller --batch-size"):
        evaluate_candidates(forward, models.parameters(), [models.systems()], models.split())


def test_batches_shrink_as_models_grow() -> None:
    mesh = local_mesh()
    assert choose_batch_size(models.split(1000), models.systems(), mesh) == 500
    assert choose_batch_size(models.split(300), models.systems(), mesh) == 300
    wide = tuple(s.replace(B=np.zeros((1, 6, 4096))) for s in models.systems())
    long = models.split(300, length=4000)
    assert choose_batch_size(long, wide, mesh) == 8
    assert choose_batch_size(long, tuple(s.replace(multi=True) for s in wide), mesh) == 1


def test_whole_numbers_stay_what_they_are() -> None:
    forward = models.forward(models.Counted())
    params = {"index": np.arange(3), "flag": np.array([True]), "z": np.ones(2, np.complex128), "w": np.ones(2)}
    found = computable(forward, params)
    assert {name: array.dtype for name, array in found.items()} == {
        "index": np.int64, "flag": np.bool_, "z": np.complex64, "w": np.float32
    }  # fmt: skip


def test_a_process_without_a_batch_of_its_own_gives_what_the_others_have(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = np.ones((4, models.CLASSES))
    monkeypatch.setattr(processes, "_PLACE", [(1, 2)])
    monkeypatch.setattr(processes, "together", lambda mine: [theirs, mine()])
    forward = models.forward(models.Counted())
    (found,) = model_outputs(forward, models.parameters(), models.systems(), models.split(4), batch_size=4)
    assert found is theirs


@pytest.mark.parametrize("said", ["RESOURCE_EXHAUSTED: 5 GiB", "CUDA_ERROR: Out of memory"])
def test_a_device_whose_memory_runs_out_is_a_sentence(said: str) -> None:
    with pytest.raises(UsageError, match="device has not enough memory for this batch"), memory_errors():
        raise jax.errors.JaxRuntimeError(said)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory_errors():
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
