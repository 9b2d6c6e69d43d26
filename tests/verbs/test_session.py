"""What several verbs share, on its own: what is opened and taken, what is written, and what a report draws from."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import lastcli
from lastcli.containers.base import TensorSource
from lastcli.engine.protocol import Reduction
from lastcli.errors import UnsupportedModelError, UsageError
from lastcli.plan import METHODS, REFITS, build_plan
from lastcli.plan.ratios import parse_ratios
from lastcli.verbs.prune import prune
from lastcli.verbs.shared import remade, skeleton
from lastcli.verbs.shared.anatomy import energies_for
from lastcli.verbs.shared.baseline import outside_tensors
from lastcli.verbs.shared.origin import _splits
from lastcli.verbs.shared.rebuilding import Rebuilt, _same, rebuild
from lastcli.verbs.shared.session import Session
from lastcli.verbs.sweep import sweep
from tests.evaluation import models


def session_of(tiny, **options) -> Session:
    return Session(build_plan({"checkpoint": str(tiny), **options}))


def test_an_open_checkpoint_is_given_back_and_stays_open(tiny):
    with lastcli.open(tiny) as model:
        with session_of(tiny) as session:
            assert session.open(model) is model
            assert session.open_pair(model, tiny)[0] is model
        assert model.read(next(iter(model.reader.tensors))).size


def test_a_model_that_is_alone_in_its_file_is_that_of_any_name(tiny):
    with session_of(tiny) as session:
        assert session._open_as(tiny, "ema", keep_others=False).sha256 == session.checkpoint.sha256
        session.flags["optimizer"] = 1
        for name in (None, "ema"):
            with pytest.raises(UsageError, match="optimizer"):
                session._open_as(tiny, name, keep_others=False)


def test_inputs_that_are_drawn_for_the_demo_are_as_long_as_its_data():
    with Session(build_plan({"checkpoint": "bundled", "calibration": "drawn:n=2"})) as session:
        drawn = session.examples.to_calibrate(0, bundled=False)
        assert drawn.x.shape == (2, *session.examples.split.x.shape[1:])


@pytest.mark.parametrize(("code", "measured"), [("def f(tensors): ...", False), ("def f(tensors, x): ...", True)])
def test_a_function_with_data_of_its_own_is_measured_on_no_split(tiny, data, code, measured):
    (tiny.parent / "mine.py").write_text(code)
    with session_of(tiny, data=str(data), forward="mine.py:f") as session:
        assert (session.examples.measured_on is not None) is measured
        read = outside_tensors(session, session.checkpoint)
        assert read.keys() == session.checkpoint.reader.tensors.keys() - session.checkpoint.state_tensors
        assert not any(name.endswith("Lambda_re") for name in read)


def test_recorded_layer_inputs_are_a_source_of_the_result(tiny, tmp_path):
    (tmp_path / "inputs.safetensors").write_bytes(b"recorded")
    with session_of(tiny, layer_inputs="inputs.safetensors", method="obs") as session:
        (source,) = _splits(session, measured=False)
    assert (source.role, source.path, len(source.sha256)) == ("layer inputs", "inputs.safetensors", 64)


def test_a_pruning_needs_a_goal_and_a_place_and_takes_the_plans(tiny):
    with pytest.raises(UsageError, match=r"Say how far to prune: --ratio 0\.33, --states N, or --max-drop"):
        lastcli.prune(tiny, dry_run=True)
    with session_of(tiny, ratio="0.5", out="o.safetensors") as session:
        assert prune(session, None).out == "o.safetensors"
    assert tiny.with_name("o.safetensors").is_file()


def test_a_method_that_moves_the_poles_ranks_no_states(tiny):
    with pytest.raises(UsageError, match="--method balanced moves the poles and ranks no states"):
        lastcli.score(tiny, method="balanced")


def test_energies_are_those_of_the_method_or_of_last_or_none():
    def compressor(*refused):
        def energies(method, refit):
            if method.name in refused:
                raise UnsupportedModelError("no norm")
            return [method.name]

        return SimpleNamespace(energies=energies)

    none = REFITS["none"]
    assert energies_for(compressor(), METHODS["aire"], none) == (["aire"], "aire")
    assert energies_for(compressor(), METHODS["balanced"], none) == (["last"], "last")
    assert energies_for(compressor("aire"), METHODS["aire"], none) == (["last"], "last")
    assert energies_for(compressor("aire", "last"), METHODS["aire"], none) == (None, "")


def test_a_model_is_known_by_what_is_kept_and_by_every_value_that_is_new():
    system, other = models.systems()

    def identity(kept, system, changed):
        return Rebuilt((), (), reductions=(Reduction(np.array([kept]), system, changed),)).identity()

    gathered = identity([0, 1], system, "none")
    assert gathered == identity([0, 1], other, "none") != identity([0, 2], system, "none")
    new = identity([0, 1], system, "readout")
    assert new == identity([0, 1], system.replace(), "readout") != identity([0, 1], other, "readout")
    assert new != identity([0, 1], system.replace(D=None if system.D is not None else np.ones(4)), "readout")


def test_layers_may_share_a_tensor_only_where_both_leave_the_same():
    ones = TensorSource.of("w", np.ones(3, np.float32))
    assert _same(None, None)
    assert not _same(None, ones)
    assert not _same(ones, None)
    assert _same(ones, TensorSource.of("w", np.ones(3, np.float32)))
    assert not _same(ones, TensorSource.of("w", np.zeros(3, np.float32)))
    system = models.systems()[0]
    family = SimpleNamespace(rebuild=lambda layer, *rest: {"w": np.full(3, layer)})
    checkpoint = SimpleNamespace(check_sizes=lambda sizes: None, layers=[1.0, 2.0], family=family, config={}, read=None)
    with pytest.raises(UsageError, match="The layers share the tensor w, so they cannot keep different states"):
        rebuild(checkpoint, [Reduction(np.arange(6)[None], system)] * 2, "ragged")


def test_a_large_tensor_is_made_again_and_must_be_there_again(monkeypatch):
    monkeypatch.setattr(remade, "SMALL", 0)
    monkeypatch.setattr(remade, "KEPT_BYTES", 0)
    there = [np.arange(3.0), np.arange(3.0), None]
    made = remade.Remade(lambda index: {"w": there.pop(0), "gone": None})
    layer = made.layer(0)
    assert layer["gone"] is None
    made.layer(1)
    with pytest.raises(RuntimeError, match="w was a tensor before"):
        layer["w"].load()


def test_steps_of_a_path_have_their_names():
    from jax.tree_util import DictKey, GetAttrKey, SequenceKey

    assert [skeleton._key(key) for key in (GetAttrKey("a"), DictKey("b"), SequenceKey(2), 3.5)] == [
        "a",
        "b",
        "2",
        "3.5",
    ]


@pytest.mark.parametrize("calibration", ["split:0.5", "drawn:n=40,length=9"])
def test_a_limit_with_a_seed_draws_from_divided_and_drawn_inputs_too(tiny, data, calibration):
    given = {"data": str(data), "calibration": calibration, "seed": 4}
    with session_of(tiny, **given) as whole, session_of(tiny, **given, calibration_limit="5") as some:
        everything, drawn = (session.examples.to_calibrate(4, bundled=False) for session in (whole, some))
    rows = [next(i for i, one in enumerate(everything.x) if np.array_equal(one, x)) for x in drawn.x]
    assert len(rows) == 5
    assert rows == sorted(set(rows))
    assert rows != list(range(5))
    assert drawn.y is None


def test_the_ratios_that_a_sweep_takes_by_itself_are_those_of_its_ladder(tiny, data, monkeypatch):
    found = []

    class EnoughError(Exception):
        pass

    def compressor(session, pairs, *, ratios):
        found.extend(ratios)
        raise EnoughError

    monkeypatch.setattr(Session, "compressor", compressor)
    with session_of(tiny, data=str(data), steps=3) as session, pytest.raises(EnoughError):
        sweep(session)
    assert found == list(parse_ratios("0:0.9:0.1"))
