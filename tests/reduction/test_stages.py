from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from lastcli import api
from lastcli.engine.reductions import truncate
from lastcli.engine.system import Reduction
from lastcli.errors import UsageError
from lastcli.evaluation.data import Split
from lastcli.model.opening import open_checkpoint
from lastcli.plan import METHODS, REFITS, Plan
from lastcli.plan.ratios import parse_ratio, parse_ratios
from lastcli.reduction import refits
from lastcli.reduction.compressor import Compressor
from lastcli.reduction.stages import Stages, ladder
from tests.conftest import write_s5


@pytest.fixture
def checkpoint(tmp_path):
    write_s5(tmp_path / "m.safetensors")
    with open_checkpoint(tmp_path / "m.safetensors") as opened:
        yield opened


@pytest.mark.parametrize(("states", "target", "steps"), [(128, 12, 3), (10, 9, 4), (5, 5, 3), (100, 1, 6)])
def test_every_stage_keeps_the_same_share_of_the_one_before(states, target, steps):
    counts = ladder(states, target, steps)
    assert counts[-1] == target
    assert len(counts) <= steps
    assert all(earlier > later for earlier, later in zip([states, *counts], counts) if states > target)
    for stage, count in enumerate(counts[:-1], start=1):
        if len(counts) == steps:
            assert abs(count - states * (target / states) ** (stage / steps)) <= 0.5


@pytest.mark.parametrize("method", ["last", "obs", "random"])
def test_kept_states_are_numbered_as_in_the_original(checkpoint, method):
    compressor = Compressor(checkpoint, Plan(steps=3))
    found = compressor.reduce(METHODS[method], REFITS["none"], ratio=parse_ratio("0.6"))
    total = sum(reduction.system.stored_states for reduction in found)
    assert total == compressor.states - int(0.6 * compressor.states + 0.999)
    for system, reduction in zip(compressor.systems, found):
        plain = truncate(system, reduction.kept)
        np.testing.assert_array_equal(plain.system.poles, reduction.system.poles)
        np.testing.assert_array_equal(plain.system.C, reduction.system.C)
        assert reduction.changed == "none"


def test_the_second_stage_ranks_what_the_first_one_made(checkpoint):
    """After a refit other states are worth less: the later stages of obs + h2 see the new read-outs."""
    one, three = (
        Compressor(checkpoint, Plan(steps=steps)).reduce(METHODS["last"], REFITS["h2"], ratio=parse_ratio("0.7"))
        for steps in (1, 3)
    )
    assert {reduction.changed for reduction in three} <= {"none", "readout"}
    assert any(not np.array_equal(a.system.C, b.system.C) for a, b in zip(one, three))


def test_the_ratios_of_a_sweep_share_one_descent(checkpoint, monkeypatch):
    plan = Plan(steps=2, ratios=parse_ratios("0.3,0.6,0.8"))
    compressor, counts = Compressor(checkpoint, plan), []
    real = Compressor.reduce_at_once

    def counted(self, method, refit, **goal):
        counts.append((self.states, goal["states"]))
        return real(self, method, refit, **goal)

    monkeypatch.setattr(Compressor, "reduce_at_once", counted)
    rows = [compressor.reduce(METHODS["obs"], REFITS["h2"], ratio=ratio) for ratio in plan.ratios]
    assert [before for before, _ in counts].count(compressor.states) == 1
    # 0.6 lies beside the only rung, √0.2 of the states, and stands in for it
    assert len({states for _, states in counts}) == len(counts) == len(rows)
    assert [sum(r.system.stored_states for r in row) for row in rows] == sorted(
        (sum(r.system.stored_states for r in row) for row in rows), reverse=True
    )
    again = compressor.reduce(METHODS["obs"], REFITS["h2"], ratio=plan.ratios[1])
    assert again is rows[1]
    assert len(counts) == len(rows)
    alone = Compressor(checkpoint, Plan(steps=2)).reduce(METHODS["obs"], REFITS["h2"], ratio=plan.ratios[-1])
    assert sum(r.system.stored_states for r in alone) == sum(r.system.stored_states for r in rows[-1])


def test_a_rung_far_from_every_ratio_of_a_sweep_stays(checkpoint, monkeypatch):
    plan, counts = Plan(steps=4, ratios=parse_ratios("0,0.9")), []
    real = Compressor.reduce_at_once
    monkeypatch.setattr(
        Compressor, "reduce_at_once", lambda *given, **goal: counts.append(goal["states"]) or real(*given, **goal)
    )
    compressor = Compressor(checkpoint, plan)
    for ratio in plan.ratios:
        compressor.reduce(METHODS["obs"], REFITS["h2"], ratio=ratio)
    rungs = ladder(compressor.states, counts[-1], 4)
    assert counts == [compressor.states, *rungs]


def test_a_criterion_of_the_stored_tensors_has_no_stages(checkpoint):
    compressor = Compressor(checkpoint, Plan(steps=2))
    with pytest.raises(UsageError, match="--steps"):
        compressor.reduce(METHODS["global-magnitude"], REFITS["none"], ratio=parse_ratio("0.5"))


@pytest.mark.parametrize(("method", "refit"), [("obs", "h2"), ("last", "none"), ("last", "h2"), ("aire", "h2")])
def test_what_stages_write_is_verified(tmp_path, method, refit):
    write_s5(tmp_path / "m.safetensors")
    api.prune(tmp_path / "m.safetensors", tmp_path / "s.safetensors", ratio=0.5, method=method, refit=refit, steps=3)
    found = api.verify(tmp_path / "m.safetensors", tmp_path / "s.safetensors")
    failed = [(check.name, check.detail) for check in found.checks if not check.ok]
    assert failed == []


def test_what_needs_inputs_says_so_without_them(checkpoint):
    compressor = Compressor(checkpoint, Plan())
    with pytest.raises(UsageError, match="obs-sensitivity needs inputs to calibrate on; give an"):
        _ = compressor.sensitivities
    with pytest.raises(UsageError, match="obs-exchange needs inputs to calibrate on; give an"):
        compressor._divided_anew([], METHODS["obs-exchange"], REFITS["calibrated"])
    with pytest.raises(UsageError, match="This needs inputs to calibrate on"):
        _ = compressor.batches


def test_more_states_than_there_are_are_refused(checkpoint):
    compressor = Compressor(checkpoint, Plan())
    most = compressor.states
    assert sum(kept.shape[1] for kept in compressor.kept(METHODS["last"], REFITS["none"], states=most)) == most
    with pytest.raises(UsageError, match=f"--states {most + 1} is more than the {most} states the model has"):
        compressor.kept(METHODS["last"], REFITS["none"], states=most + 1)


def test_processes_compute_together_only_what_reductions_share(checkpoint, monkeypatch):
    asked = []
    monkeypatch.setattr("lastcli.reduction.compressor.processes.count", lambda: 2)
    for name in ("_balance", "ranks", "moments"):
        monkeypatch.setattr(Compressor, name, lambda self, *given, name=name: asked.append(name))
    split = Split(np.zeros((4, 7, 3), np.float32))
    for method, refit in (("balanced", "none"), ("last", "none"), ("last", "calibrated")):
        Compressor(checkpoint, Plan(), split).prepare([(METHODS[method], REFITS[refit])])
        asked.append("")
    assert asked == ["_balance", "", "ranks", "", "ranks", "moments", ""]


def test_a_rule_of_the_published_code_keeps_no_unstable_state_in_its_place(checkpoint):
    poles = checkpoint.systems[0].poles.copy()
    poles[0, 1] = 1.1
    systems = [checkpoint.systems[0].replace(poles=poles), *checkpoint.systems[1:]]
    for plan, pins in (
        (Plan(), True),
        (Plan(compat="reference"), False),
        (Plan(compat="reference", allow_unstable=True), True),
    ):
        found = Compressor(checkpoint, plan, systems=systems).pinned(METHODS["last"], REFITS["none"])
        assert (found is not None) == pins


def test_a_layer_that_no_fit_changed_stays_the_reduction_it_was(checkpoint):
    before = truncate(checkpoint.systems[0], np.array([[0, 2]]))
    assert refits._moved(before, before.system) is before
    assert refits._moved(before, before.system.replace(D=None)).changed != "none"


def test_the_refit_of_B_says_how_far_it_is(monkeypatch):
    told = []
    bar = SimpleNamespace(advance=told.append)
    monkeypatch.setattr(
        refits, "calibrated", lambda task: [Reduction(np.zeros((1, 1)), system, "readout") for system in "ab"]
    )
    monkeypatch.setattr("lastcli.engine.selective.drive.fit_drive", lambda original, reduced, signals: reduced)
    task = SimpleNamespace(progress=lambda label, total: nullcontext(bar), systems="ab")
    found = refits.calibrated_drive(task)
    assert [(reduction.system, reduction.changed) for reduction in found] == [("a", "all"), ("b", "all")]
    assert told == [1, 1]


def counted(steps, ratios=()):
    """Stages of 128 states that only note what they were asked for: (states before, states to keep)."""
    asked = []

    def reduce(layers, keep):
        asked.append((sum(layer.stored_states for layer in layers), keep))
        layer = SimpleNamespace(stored_states=keep)
        return [Reduction(np.arange(keep)[None], layer, "readout")]

    whole = SimpleNamespace(stored_states=128)
    return Stages([whole], steps, parse_ratios(ratios) if ratios else (), reduce), asked


@pytest.mark.parametrize("before", [(), ("0.3",), ("0.6", "0.3"), ("0.8", "0.3", "0.6")], ids=str)
def test_the_way_to_a_ratio_of_a_sweep_does_not_depend_on_what_was_reduced_before(before):
    """A sweep that goes on from finished rows, and each of several processes, reduce some of the ratios only."""
    stages, asked = counted(2, "0.3,0.6,0.8")
    for ratio in before:
        stages.reduce(ratio=parse_ratio(ratio))
    stages.reduce(ratio=parse_ratio("0.8"))
    assert sorted(asked, reverse=True) == [(128, 89), (89, 51), (51, 25)]


@pytest.mark.parametrize("before", [(), (12, 51, 89, 31, 41), (36, 35, 37)], ids=str)
def test_the_way_to_a_number_of_states_does_not_depend_on_what_was_tried_before(before):
    """A search tries many counts, a recipe only the one that was found."""
    stages, asked = counted(3)
    for states in before:
        stages.reduce(states=states)
    assert stages.way(36) == (84, 55, 36)
    known = len(asked)
    stages.reduce(states=36)
    if not before:
        assert asked == [(128, 84), (84, 55), (55, 36)]
    assert len(asked) - known <= 3


def test_a_search_in_stages_finds_what_a_fresh_run_makes(checkpoint):
    tried, fresh = Compressor(checkpoint, Plan(steps=3)), Compressor(checkpoint, Plan(steps=3))
    for states in (9, 7, 5, 6):
        found = tried.reduce(METHODS["obs"], REFITS["h2"], states=states)
    again = fresh.reduce(METHODS["obs"], REFITS["h2"], states=6)
    for one, other in zip(found, again):
        np.testing.assert_array_equal(one.kept, other.kept)
        np.testing.assert_array_equal(one.system.C, other.system.C)


def test_a_ratio_of_nothing_is_no_stage_on_the_way(checkpoint):
    stages, asked = counted(1, "0,0.5")
    for ratio in ("0", "0.5"):
        stages.reduce(ratio=parse_ratio(ratio))
    assert asked == [(128, 128), (128, 64)]


def test_what_a_stage_decides_is_said_once(checkpoint, monkeypatch):
    real = Compressor.reduce_at_once

    def telling(self, *given, **goal):
        self.decide("Something was decided.")
        return real(self, *given, **goal)

    monkeypatch.setattr(Compressor, "reduce_at_once", telling)
    compressor = Compressor(checkpoint, Plan(steps=3))
    compressor.reduce(METHODS["last"], REFITS["none"], ratio=parse_ratio("0.6"))
    assert compressor.decisions == ["Something was decided."]
