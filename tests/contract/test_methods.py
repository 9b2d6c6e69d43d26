"""Every method with every refit: the compact model answers as the masked one, with the states that were asked for."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from lastcli.engine.embedding import embed
from lastcli.evaluation.passes import model_outputs
from lastcli.plan import METHODS, REFITS, build_plan
from lastcli.reduction import refits
from lastcli.reduction.feasible import misfit
from lastcli.verbs.shared.rebuilding import as_checkpoint, rebuild
from lastcli.verbs.shared.session import Session
from tests.builders.s4d import s4d_model
from tests.conftest import write_s5
from tests.reduction.test_feasible import write

# Searches take seconds, most of them to compile: they follow one method of a kind (elimination, ranking, projection).
SEARCHED = {"s5": ("obs",), "s4d": ("last", "balanced")}
CASES = [
    (name, method, refit)
    for name in SEARCHED
    for method in METHODS
    for refit in REFITS
    if not REFITS[refit].slow or method in SEARCHED[name]
]


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """A MIMO and a multi-SISO model with calibration inputs, opened once."""
    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(7)
    write_s5(folder / "s5.safetensors")
    np.savez(folder / "s5.npz", x=rng.normal(size=(12, 9, 3)).astype(np.float32))
    write(folder / "s4d.safetensors", s4d_model(rng, H=4, N=6))
    np.savez(folder / "s4d.npz", x=rng.normal(size=(12, 9, 2)).astype(np.float32))
    opened = {}
    for name in ("s5", "s4d"):
        options = {"checkpoint": str(folder / f"{name}.safetensors"), "calibration": str(folder / f"{name}.npz")}
        opened[name] = Session(build_plan(options))
    yield opened
    for session in opened.values():
        session.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def _short_searches(monkeypatch):
    monkeypatch.setattr(refits, "POLE_STEPS", 4)
    monkeypatch.setattr(refits, "MATCH_STEPS", 8)


@pytest.mark.parametrize(("name", "method", "refit"), CASES)
def test_the_compact_model_answers_as_the_masked_one(sessions, name, method, refit):
    session = sessions[name]
    checkpoint = session.checkpoint
    entry = METHODS[method], REFITS[refit]
    if misfit(checkpoint, *entry) is not None:
        pytest.skip("a pair that makes no sense on this model")
    compressor = session.compressor([entry])
    reductions = compressor.reduce(*entry, ratio=Decimal("0.5"))
    assert sum(reduction.system.stored_states for reduction in reductions) <= compressor.states // 2
    compact = as_checkpoint(checkpoint, rebuild(checkpoint, reductions, "ragged"))
    masked = tuple(embed(system, reduction) for system, reduction in zip(checkpoint.systems, reductions))
    forward, split = checkpoint.require_forward(), session.examples.calibration
    (wanted,) = model_outputs(forward, checkpoint.params, masked, split, batch_size=12)
    (got,) = model_outputs(compact.require_forward(), compact.params, compact.systems, split, batch_size=12)
    np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-4 * np.abs(wanted).max())
    assert np.abs(wanted).max() > 0
