"""`prune --method best`: what it finds, what it writes, what it refuses, and when it stops."""

from __future__ import annotations

import json
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import lastcli
from lastcli.errors import GateError, InputError, UnsupportedModelError, UsageError
from lastcli.parallel import processes
from lastcli.plan import METHODS, REFITS, build_plan
from lastcli.plan.quantities import parse_duration
from lastcli.results import SearchStep
from lastcli.verbs.shared import best, search
from lastcli.verbs.shared.budget import Budget, BudgetSpentError
from lastcli.verbs.shared.recipe import write_recipe
from lastcli.verbs.shared.search import Found
from lastcli.verbs.shared.session import Session

QUICK = (("last", "none", 1), ("obs", "calibrated", 1), ("obs", "h2", 1), ("obs", "sequential", 2))


@pytest.fixture
def quick(monkeypatch):
    """The ladder without what takes long."""
    monkeypatch.setattr(best, "_LADDER", QUICK)


@pytest.mark.usefixtures("quick")
def test_it_keeps_what_removes_most_and_its_recipe_makes_the_same_file(last, tiny, answered, tmp_path):
    out = tmp_path / "a" / "small.safetensors"
    out.parent.mkdir()
    split = ("--data", answered, "--calibration", "split:0.5", "--seed", "4")
    code, text, err = last("prune", tiny, "--method", "best", "--max-drop", "0", *split, "--out", out, "--json")
    assert code == 0, err
    assert "50 examples" in err
    assert "none is in both" in err
    found = json.loads(text)
    attempts = found["search"]["attempts"]
    assert [(one["method"], one["refit"], one["steps"]) for one in attempts] == list(QUICK)
    within = [one for one in attempts if one["ratio"] is not None]
    assert within[-1]["states"] == found["states_after"] == min(one["states"] for one in within)
    assert [one["states"] for one in within] == sorted({one["states"] for one in within}, reverse=True)
    assert (found["method"], found["refit"], found["steps"]) == tuple(
        within[-1][key] for key in ("method", "refit", "steps")
    )
    assert found["search"]["drop"] <= 0
    assert len(within) > 1
    recipe = yaml.safe_load((out.parent / "small.recipe.yaml").read_text())
    assert recipe["data"] == "../answered.npz"
    assert recipe["calibration"] == "split:0.5"
    assert last("prune", "--recipe", out.parent / "small.recipe.yaml", "--out", tmp_path / "again.safetensors")[0] == 0
    assert (tmp_path / "again.safetensors").read_bytes() == out.read_bytes()


@pytest.mark.usefixtures("quick")
def test_nothing_dearer_is_tried_once_no_state_can_be_spared(tiny, answered):
    found = lastcli.prune(
        tiny, method="best", max_drop=0.9, data=answered, calibration="split:0.5", dry_run=True
    ).search.attempts
    assert found[0].outcome == "within the bound"
    assert {one.outcome for one in found[1:]} == {"not tried: no state can be spared any more"}


@pytest.mark.usefixtures("quick")
def test_without_calibration_only_what_needs_none_is_tried(last, tiny, answered):
    code, text, err = last(
        "prune", tiny, "--method", "best", "--max-drop", "0.1", "--data", answered, "--dry-run", "--json"
    )
    assert code == 0
    assert "split:0.5" in err
    assert [(one["method"], one["refit"]) for one in json.loads(text)["search"]["attempts"]] == [
        ("last", "none"),
        ("obs", "h2"),
    ]


@pytest.mark.usefixtures("quick")
def test_the_table_says_what_was_tried(last, tiny, answered):
    text = last("prune", tiny, "--method", "best", "--max-drop", "0.1", "--data", answered, "--dry-run")[1]
    assert "Tried, from the cheapest to the dearest" in text
    assert "obs" in text


@pytest.mark.usefixtures("quick")
def test_what_was_best_is_kept_when_the_budget_is_spent(tiny, answered, monkeypatch):
    """The clock stands still until the second attempt begins, then it is late."""
    now = [0.0]
    real = best._Trying._attempt

    def attempt(self, method, refit, steps, baseline):
        now[0] = 1000.0 * bool(self.attempts)
        real(self, method, refit, steps, baseline)

    monkeypatch.setattr(best._Trying, "_attempt", attempt)
    monkeypatch.setattr(best, "Budget", lambda seconds: Budget(seconds, lambda: now[0]))
    given = {
        "method": "best",
        "max_drop": 0.0,
        "data": answered,
        "calibration": "split:0.5",
        "seed": 4,
        "dry_run": True,
    }
    free = lastcli.prune(tiny, **given)
    assert len({one.states for one in free.search.attempts}) > 1
    now[0] = 0.0
    found = lastcli.prune(tiny, budget="5m", **given)
    first, second, *others = found.search.attempts
    assert found.states_after == first.states == free.search.attempts[0].states
    assert second.outcome.startswith("stopped, the budget is spent")
    assert {one.outcome for one in others} == {"not tried: the budget is spent"}


@pytest.mark.usefixtures("quick")
def test_a_budget_spent_before_anything_was_found(tiny, answered):
    with pytest.raises(GateError, match=r"within the budget of 0\.000001s"):
        lastcli.prune(tiny, method="best", max_drop=0.1, data=answered, budget="0.000001s", dry_run=True)


def test_a_step_that_reports_after_the_end_is_stopped():
    now = [0.0]
    session = Session(build_plan({}))
    budget = Budget(10.0, lambda: now[0])
    with budget.watching(session), session.bar("Working", 3) as bar:
        bar.advance(1)
        now[0] = 10.0
        with pytest.raises(BudgetSpentError):
            bar.advance(1)
        budget.close()
        bar.advance(1)
        assert budget.spent
    assert session.progress is None


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5m", 300), ("1.5h", 5400), (" 2 M ", 120)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "0s", "-1m", "5 minutes", "1e9s", "nan"])
def test_what_is_no_duration(text):
    with pytest.raises(UsageError, match="--budget"):
        parse_duration(text)


BOUND = {"method": "best", "max_drop": 0.01}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "best", "ratio": 0.5}, "give --max-drop"),
        ({"method": "best"}, "give --max-drop"),
        ({**BOUND, "refit": "match"}, "leave --refit out"),
        ({**BOUND, "steps": 3}, "leave --steps out"),
        ({**BOUND, "match_output": True}, "leave --match-output out"),
        ({**BOUND, "compat": "reference"}, "leave --compat out"),
        ({**BOUND, "budget": "soon"}, "90s, 5m or 1h"),
        ({"method": "obs", "budget": "5m"}, "--budget"),
        ({**BOUND, "calibration": "split:0.5"}, "divides --data"),
        ({**BOUND, "calibration": "split:1.5"}, "split:0.5"),
        ({**BOUND, "calibration": "split:half"}, "split:0.5"),
        (BOUND, "--data"),
    ],
)
def test_refusals(tiny, given, said):
    with pytest.raises(UsageError, match=said):
        lastcli.prune(tiny, dry_run=True, **given)


def test_best_is_of_prune_alone(last, tiny, answered, tmp_path):
    assert last("score", tiny, "--method", "best")[0] == 2
    assert last("sweep", tiny, "--methods", "last,best", "--data", answered)[0] == 2
    (tmp_path / "r.yaml").write_text("method: best\nmax_drop: 0.1\nfail_over: 0.1\n")
    code, _, err = last("sweep", tiny, "--recipe", tmp_path / "r.yaml", "--data", answered)
    assert code == 2
    assert "last prune" in err


@pytest.mark.usefixtures("quick")
def test_a_recipe_that_is_there_is_not_replaced(last, tiny, answered, tmp_path):
    (tmp_path / "small.recipe.yaml").write_text("mine")
    given = ("prune", tiny, "--method", "best", "--max-drop", "0.1", "--data", answered)
    code, _, err = last(*given, "--out", tmp_path / "small.safetensors")
    assert code == 5
    assert "small.recipe.yaml" in err
    assert (tmp_path / "small.recipe.yaml").read_text() == "mine"
    assert not (tmp_path / "small.safetensors").exists()
    assert last(*given, "--out", tmp_path / "small.safetensors", "--force")[0] == 0
    assert "method" in yaml.safe_load((tmp_path / "small.recipe.yaml").read_text())


def test_the_parts_of_a_divided_split_have_no_common_example(answered):
    plan = {"checkpoint": "tiny.safetensors", "data": str(answered), "calibration": "split:0.3"}
    parts = {}
    for seed in (0, 0, 1):
        with Session(build_plan({**plan, "seed": seed})) as session:
            assert session.examples.calibration.y is None
            parts[seed] = (session.examples.calibration.x, session.examples.split.x)
            assert [len(part) for part in parts[seed]] == [30, 70]
            both = np.concatenate(parts[seed])
            assert len(np.unique(both, axis=0)) == 100
            assert np.isin(both, np.load(answered)["x"]).all()
    assert not np.array_equal(parts[0][0], parts[1][0])


def test_too_few_examples_to_divide(tiny, answered):
    with pytest.raises((UsageError, InputError), match="leaves nothing"):
        lastcli.prune(tiny, ratio=0.5, method="obs", data=answered, limit="1", calibration="split:0.5", dry_run=True)


def test_other_methods_and_verify_divide_alike(last, tiny, answered, tmp_path):
    split = ("--data", answered, "--calibration", "split:0.5")
    for name in ("a", "b"):
        code, _, err = last(
            "prune", tiny, "--method", "obs", "--ratio", "0.3", *split, "--out", tmp_path / f"{name}.safetensors"
        )
        assert (code, "none is in both" in err) == (0, True)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    code, text, _ = last("verify", tiny, tmp_path / "a.safetensors", *split, "--json")
    assert code == 0, text


@pytest.mark.slow
def test_ninety_percent_of_the_bundled_model(tmp_path):
    """Chosen on the validation split, at most a point is lost on the test split."""
    out = tmp_path / "small.safetensors"
    found = lastcli.prune(
        "bundled", out, method="best", max_drop=0.01, data="bundled:validation", calibration="bundled:calibration"
    )
    assert found.ratio >= 0.9
    full, small = (lastcli.evaluate(model, data="bundled:test").value for model in ("bundled", out))
    assert full - small <= 0.01
    lastcli.prune(recipe=tmp_path / "small.recipe.yaml", out=tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == out.read_bytes()


# --- the parts alone ---


def test_of_several_processes_the_clock_is_looked_at_where_a_step_begins(monkeypatch):
    now = [0.0]
    budget, session = Budget(5.0, clock=lambda: now[0]), SimpleNamespace(progress=None)
    monkeypatch.setattr(processes, "_PLACE", [(0, 2)])
    monkeypatch.setattr(processes, "exchange", lambda mine: [mine, mine])
    with budget.watching(session):
        with session.progress("one", 3) as bar:
            now[0] = 6.0
            bar.advance(1)  # not within a step, which the others may still be in
        with pytest.raises(BudgetSpentError), session.progress("two", 3):
            pytest.fail("a step began after the end")
        with processes.alone(), session.progress("own", 1) as bar:
            bar.advance(1)
    assert session.progress is None


def test_a_budget_shows_the_progress_that_it_watches():
    seen = []

    @contextmanager
    def progress(label, total):
        seen.append((label, total))
        yield SimpleNamespace(advance=seen.append)

    session = SimpleNamespace(progress=progress)
    with Budget(60.0).watching(session), session.progress("Sweeping", 7) as bar:
        bar.advance(3)
    assert seen == [("Sweeping", 7), 3]
    assert session.progress is progress


def attempting(monkeypatch, plan, **session):
    monkeypatch.setattr(best, "_LADDER", QUICK)
    return best._Trying(SimpleNamespace(plan=plan, checkpoint=None, note=lambda sentence: None, **session))


def test_what_does_not_suit_the_model_is_not_tried(monkeypatch):
    plan = build_plan({"method": "best", "max_drop": 0.1})
    trying = attempting(monkeypatch, plan, examples=SimpleNamespace(has_calibration=True, calibration=None))
    refused = UsageError("no obs here")
    monkeypatch.setattr(best, "misfit", lambda model, method, refit: refused if refit.name == "h2" else None)
    names = [(method.name, refit.name, steps) for method, refit, steps in trying._suitable()]
    assert names == [one for one in QUICK if one[1] != "h2"]


@pytest.mark.usefixtures("quick")
def test_what_one_of_them_cannot_do_is_said_and_the_others_go_on(tiny, answered, monkeypatch):
    real = Session.compressor

    def failing(session, pairs, **given):
        if pairs[0][1].name == "h2":
            raise UnsupportedModelError("no h2 here")
        return real(session, pairs, **given)

    monkeypatch.setattr(Session, "compressor", failing)
    given = {"method": "best", "max_drop": 0.0, "data": answered, "dry_run": True}
    found = lastcli.prune(tiny, **given).search.attempts
    assert [(one.refit, one.outcome) for one in found] == [
        ("none", "within the bound"),
        ("h2", "cannot be done: no h2 here"),
    ]
    monkeypatch.setattr(best, "_LADDER", (("obs", "h2", 1),))
    with pytest.raises(UnsupportedModelError, match="no h2 here"):
        lastcli.prune(tiny, **given)


@pytest.mark.usefixtures("quick")
def test_calibration_inputs_that_cannot_be_read_end_it(tiny, answered, tmp_path):
    (tmp_path / "torn.npz").write_bytes(answered.read_bytes()[:200])
    with pytest.raises(InputError, match=r"torn\.npz"):
        lastcli.prune(tiny, method="best", max_drop=0.1, data=answered, calibration=tmp_path / "torn.npz", dry_run=True)


def test_a_slow_one_costs_a_single_try_where_it_cannot_win(monkeypatch):
    """One state fewer than the best so far is tried first; outside the bound, nothing else is."""
    monkeypatch.setattr(search, "metric_of", lambda session: None)
    asked = []

    def searched(below, enough):
        asked.clear()
        one = search.Search(None, SimpleNamespace(states=768), METHODS["obs"], REFITS["match"], None, below)

        def tried(counts):
            for count in counts:
                if count not in one.within:
                    asked.append(count)
                    one.within[count] = count >= enough

        monkeypatch.setattr(one, "_try", tried)
        monkeypatch.setattr(one, "finish", lambda: min((n for n, fine in one.within.items() if fine), default=None))
        return one.run()

    for below in (700, 300, 120, 2):
        assert searched(below, below) is None
        assert asked == [below - 1]
    assert 250 <= searched(300, 250) < 250 + 768 // 64
    assert len(asked) < 10


@pytest.mark.parametrize(("states", "kept"), [(9, 9), (10, 10), (12, 10)])
def test_an_attempt_that_needs_as_many_states_is_not_the_best(monkeypatch, states, kept):
    plan = build_plan({"method": "best", "max_drop": 0.1})
    trying = attempting(monkeypatch, plan, compressor=lambda pairs, steps: None)

    def attempt(count):
        end = SearchStep(ratio=0.5, states=count, value=0.9, drop=0.0, within=True)
        found = Found(SimpleNamespace(steps=(end,)), [], count)
        monkeypatch.setattr(best, "Search", lambda *given: SimpleNamespace(run=lambda: found))
        trying._attempt(METHODS["last"], REFITS["none"], 1, None)

    attempt(10)
    attempt(states)
    assert trying.best.states == kept
    assert len(trying.attempts) == 2


@pytest.mark.parametrize(("confirmed", "asked"), [({5, 7}, 5), ({7}, 7), (set(), None)])
def test_the_smallest_model_that_is_confirmed_at_its_own_size_is_found(monkeypatch, confirmed, asked):
    monkeypatch.setattr(search, "metric_of", lambda session: None)
    one = search.Search(None, SimpleNamespace(states=9), METHODS["last"], REFITS["none"], None)
    one.within, one.reduced = {3: False, 5: True, 7: True}, {5: ["five"], 7: ["seven"]}
    monkeypatch.setattr(one, "_confirm", lambda count: count if count in confirmed else None)
    monkeypatch.setattr(one, "_result", lambda step: step)
    one._try([3, 5])  # known already: nothing is reduced
    found = one.finish()
    assert (found.asked, found.result) == (asked, asked)
    assert found.reductions == (None if asked is None else one.reduced[asked])


def test_the_recipe_says_what_was_said_of_the_model(tiny, tmp_path):
    (tmp_path / "own.yaml").write_text("activation: half_glu1\nstep_rescale: 2.0\n")
    plan = build_plan(
        {"checkpoint": str(tiny), "ratio": 0.5, "model": {"family": "s5", "step_rescale": 1.5, "clip_eigs": True}}
    )
    with Session(plan, flags={"step_rescale": 3.0}, model_config=tmp_path / "own.yaml") as session:
        found = yaml.safe_load(write_recipe(session, plan, tmp_path / "small.pth", force=False).read_text())
    assert found["model"] == {"family": "s5", "step_rescale": 3.0, "clip_eigs": True, "activation": "half_glu1"}
    assert found["checkpoint"] == "tiny.safetensors"
