"""A recipe describes the model for every verb, and what is named is what is looked at."""

from __future__ import annotations

import json

import pytest

from tests.conftest import write_s5


@pytest.fixture
def undescribed(tmp_path, monkeypatch):
    """An S5 whose file says nothing of itself, and a recipe that does."""
    monkeypatch.chdir(tmp_path)
    write_s5(tmp_path / "m.safetensors", describe=False, conj_sym=False, discretization="bilinear")
    (tmp_path / "r.yaml").write_text(
        "model:\n  family: s5\n  discretization: bilinear\n  conj_sym: false\n  activation: half_glu1\n"
    )
    return tmp_path / "m.safetensors"


def test_a_file_pruned_with_a_recipe_verifies_and_is_timed_with_it(last, undescribed):
    code, _, err = last("prune", "m.safetensors", "--recipe", "r.yaml", "--ratio", "0.5", "--out", "p.safetensors")
    assert code == 0, err
    code, out, err = last("verify", "m.safetensors", "p.safetensors", "--recipe", "r.yaml", "--json")
    assert code == 0, out + err
    assert json.loads(out)["ok"] is True
    code, out, err = last(
        "bench", "m.safetensors", "p.safetensors", "--recipe", "r.yaml", "--length", "6", "--repeats", "2", "--json"
    )
    assert code == 0, err


@pytest.mark.parametrize("verb", ["verify", "bench"])
def test_a_recipe_with_a_family_that_does_not_exist_is_refused(last, undescribed, verb):
    (undescribed.parent / "wrong.yaml").write_text("model:\n  family: nonsense\n")
    code, _, err = last(verb, "m.safetensors", "m.safetensors", "--recipe", "wrong.yaml")
    assert code == 2, err
    assert "nonsense" in err


@pytest.mark.parametrize("verb", ["verify", "bench"])
def test_the_bundled_model_is_not_spoken_of_where_others_are_named(last, tiny, data, verb):
    assert last("prune", tiny, "--ratio", "0.4", "--out", "p.safetensors", "-q")[0] == 0
    more = ["--repeats", "2"] if verb == "bench" else []
    code, _, err = last(verb, tiny, "p.safetensors", "--data", data, *more)
    assert code == 0, err
    assert "bundled" not in err
