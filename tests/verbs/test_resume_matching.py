"""`--resume FILE` keeps the matching of outputs beside FILE until the command is done."""

import numpy as np
import pytest

import lastcli
from lastcli.errors import InputError, UsageError
from lastcli.reduction import match_output as matching
from lastcli.verbs.shared import interrupted
from lastcli.verbs.shared.interrupted import KeptMatchings, forget_matchings
from tests.conftest import write_s5


class Stopped(Exception):
    """Somebody stops the run."""


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(interrupted, "EVERY", 0.0)
    write_s5("m.safetensors")
    x = np.random.default_rng(0).normal(size=(24, 7, 3)).astype(np.float32)
    np.savez("c.npz", x=x)
    return tmp_path


@pytest.mark.slow
@pytest.mark.usefixtures("short_searches")
def test_a_gradual_pruning_that_was_stopped_goes_on(files, monkeypatch):
    options = {"ratio": "0.75", "method": "obs", "refit": "match", "steps": 2, "calibration": "c.npz"}
    lastcli.prune("m.safetensors", "whole.safetensors", **options)
    real, taken = matching._Fitting.step, []

    def step(fitting, *of):
        if len(taken) == limit:
            raise Stopped
        taken.append(of[-1])
        return real(fitting, *of)

    monkeypatch.setattr(matching._Fitting, "step", step)
    limit = None
    lastcli.prune("m.safetensors", "again.safetensors", **options)
    total = len(taken)
    taken.clear()
    limit = total - 1
    with pytest.raises(Stopped):
        lastcli.prune("m.safetensors", "small.safetensors", resume="kept", **options)
    assert len(list((files / "kept.matching").iterdir())) == 2
    taken.clear()
    limit = None
    result = lastcli.prune("m.safetensors", "small.safetensors", resume="kept", **options)
    assert len(taken) < total // 2
    assert any("Going on with the matching" in note for note in result.notes)
    assert (files / "small.safetensors").read_bytes() == (files / "whole.safetensors").read_bytes()
    assert not (files / "kept.matching").exists()


def test_without_shards_and_matching_there_is_nothing_to_keep(files):
    with pytest.raises(UsageError, match="keeps finished shards and the matching of outputs, and here is neither"):
        lastcli.prune("m.safetensors", "small.safetensors", ratio="0.5", resume="kept")


def test_a_damaged_file_is_named(tmp_path):
    kept = KeptMatchings(tmp_path / "kept", print)

    def like():
        return {"x": np.zeros(3)}

    kept.write("a", lambda: {"x": np.ones(3)}, done=True)
    np.testing.assert_array_equal(kept.read("a", like)["x"], np.ones(3))
    assert kept.read("b", like) is None
    path = tmp_path / "kept" / "a.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"a\.npz is damaged; remove it"):
        kept.read("a", like)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"x": np.ones(4)},
        {"x": np.ones(3, np.float32)},
        {"x": np.ones(3), "y": np.ones(3)},
    ],
    ids=["none", "other shape", "other type", "one more"],
)
def test_a_file_of_other_arrays_is_named(tmp_path, arrays):
    kept = KeptMatchings(tmp_path / "kept", print)
    kept.write("a", lambda: arrays, done=True)
    with pytest.raises(InputError, match=r"a\.npz was changed or written by another version; remove it"):
        kept.read("a", lambda: {"x": np.zeros(3)})


def test_it_is_written_now_and_then_and_at_the_end(tmp_path):
    kept, asked = KeptMatchings(tmp_path / "kept", print), []

    def arrays():
        asked.append(1)
        return {"x": np.ones(1)}

    for done in (False, False, True):
        kept.write("a", arrays, done=done)
    assert len(asked) == 2


def test_files_of_others_stay_where_they_are(tmp_path):
    forget_matchings(None)
    forget_matchings(tmp_path / "rows.jsonl")
    folder = tmp_path / "rows.jsonl.matching"
    folder.mkdir()
    for name in ("0" * 32 + ".npz", "a.npz", "weights.npz", "notes.txt"):
        (folder / name).write_text("mine")
    forget_matchings(tmp_path / "rows.jsonl")
    assert sorted(path.name for path in folder.iterdir()) == ["a.npz", "notes.txt", "weights.npz"]
    for path in folder.iterdir():
        path.unlink()
    forget_matchings(tmp_path / "rows.jsonl")
    assert not folder.exists()
