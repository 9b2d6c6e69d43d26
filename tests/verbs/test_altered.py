"""Files whose tensors, layers or records are not what a pruning leaves: a check says what is wrong."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from lastcli import containers
from lastcli.containers.base import TensorSource
from lastcli.engine.protocol import Reduction
from lastcli.errors import InputError
from lastcli.families import family_named
from lastcli.verbs.shared.proof import Prover
from lastcli.verbs.shared.record import chain
from lastcli.verbs.shared.selection import _same_but_ties
from tests.builders.families import CASES
from tests.evaluation import models
from tests.families.rebuilding import config_of
from tests.verbs.rewriting import failed, how, rewritten, verdict

SEQ = "params/encoder/layers_0/seq/"
BIAS = "params/encoder/encoder/bias"


@pytest.fixture
def half(last, tiny):
    """The tiny S5 pruned to half by `last`, nothing refitted."""
    code, _, err = last("prune", tiny, "--ratio", "0.5", "--out", "p.safetensors", "-q")
    assert code == 0, err
    return tiny.with_name("p.safetensors")


def nothing(arrays):
    pass


def forget(document):
    document.pop("last")


def details(found):
    return {check["name"]: check["detail"] for check in found["checks"] if not check["ok"]}


def per_state(change):
    """A change of every tensor of the first layer that has states, along their axis."""

    def changed(arrays):
        for name in list(arrays):
            if name.startswith(SEQ) and not name.endswith("/D"):
                arrays[name] = np.ascontiguousarray(change(arrays[name], 1 if name.endswith("/C") else 0))

    return changed


def without_second_layer(arrays):
    for name in [name for name in arrays if "layers_1" in name]:
        del arrays[name]


def with_third_layer(arrays):
    for name in [name for name in arrays if "layers_1" in name]:
        arrays[name.replace("layers_1", "layers_2")] = arrays[name].copy()


def narrower(arrays):
    for role, cut in {"B": np.s_[:, :3], "C": np.s_[:3], "D": np.s_[:3]}.items():
        arrays[SEQ + role] = np.ascontiguousarray(arrays[SEQ + role][cut])


one_state_more = per_state(lambda array, axis: np.concatenate([array, np.take(array, [0], axis)], axis))
many_states_more = per_state(lambda array, axis: np.concatenate([array] * 4, axis))
one_state_fewer = per_state(lambda array, axis: np.delete(array, -1, axis))


@pytest.mark.parametrize(
    ("change", "check", "says"),
    [
        (lambda a: a.pop(BIAS), "untouched", f"{BIAS} is missing in PRUNED"),
        (lambda a: a.update({BIAS: a[BIAS].reshape(2, 2)}), "untouched", "float32(4,) became float32(2, 2)"),
        (lambda a: a.update({BIAS: a[BIAS].astype(float)}), "untouched", "float32(4,) became float64(4,)"),
        (lambda a: a.update(extra=np.ones(3)), "untouched", "extra is not in ORIGINAL"),
        (lambda a: a["params/decoder/bias"].__iadd__(1), "untouched", "params/decoder/bias: the bytes differ"),
        (lambda a: a[SEQ + "B"].fill(np.nan), "finite", f"tensor {SEQ}B holds NaN or infinity"),
        (without_second_layer, "layers", "2 in ORIGINAL, 1 in PRUNED"),
        (with_third_layer, "layers", "2 in ORIGINAL, 3 in PRUNED"),
        (one_state_more, "kept states", "states beyond the 2 kept ones are not inert"),
        (many_states_more, "shapes", "has 8 states, more than 6"),
        (one_state_fewer, "kept states", "2 states are said to stay, the layer has 1"),
        (narrower, "kept states", "it has 3 inputs, not 4"),
    ],
)
def test_a_tensor_that_is_not_originals_is_named(change, check, says, last, tiny, half):
    assert says in details(verdict(last, tiny, rewritten(half, change)))[check]


@pytest.mark.parametrize("change", [lambda a: a.pop(BIAS), lambda a: a.update({BIAS: a[BIAS].reshape(2, 2)})])
def test_outputs_are_not_compared_where_the_model_around_the_layers_is_another(change, last, tiny, half):
    found = verdict(last, tiny, rewritten(half, change))
    assert details(found)["equal outputs"].startswith("not compared")
    assert found["max_abs_difference"] is None
    assert how(found)["kept states"] == "proved"


@pytest.mark.parametrize(
    ("change", "says"),
    [(many_states_more, "its poles are not ORIGINAL's"), (narrower, "the layer has another width")],
)
def test_without_a_record_what_cannot_be_originals_is_found(change, says, last, tiny, half):
    assert says in details(verdict(last, tiny, rewritten(half, change, describe=forget)))["kept states"]


def test_without_a_record_fewer_states_of_original_are_a_pruning_too(last, tiny, half):
    found = verdict(last, tiny, rewritten(half, one_state_fewer, describe=forget))
    assert failed(found) == set()
    assert how(found)["read-out"] == "proved"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"options": [1]}, "options a mapping"),
        ({"sha256": 3}, "sha256 is 3, not text"),
        ({"method": [1]}, "method is [1], not text"),
        ({"ratio": True}, "ratio is True, not a number"),
        ({"ratio": "x"}, "ratio is x, not a number"),
        ({"ratio": 1.5}, "ratio is not between 0 and 1"),
        ({"ratio": 10**400}, "ratio is not between 0 and 1"),
        ({"states_after": 1.5}, "states_after is 1.5, not a count of states"),
        ({"states_after": -1}, "states_after is -1, not a count of states"),
        ({"states_before": 2**63}, "not a count of states"),
        ({"layout": 3}, "layout is 3, not text"),
        ({"layout": "pad"}, "no layout 'pad'"),
        ({"compat": "x"}, "no compat 'x'"),
        ({"options": {"seed": "x"}}, "--seed must be a whole number"),
        ({"options": {"seed": -1}}, "--seed must be at least 0"),
        ({"options": {"min_states": "x"}}, "--min-states must be a whole number"),
        ({"options": {"allow_unstable": True, "refuse_unstable": True}}, "exclude each other"),
        ({"history": [{"layers": 3}]}, "layers must be a list"),
        ({"history": [{"layers": [{"kept": "ab"}]}]}, "does not say which states stayed"),
    ],
)
def test_a_damaged_record_is_a_failed_check_that_says_where(damage, says, last, tiny, half):
    found = verdict(last, tiny, rewritten(half, nothing, describe=lambda document: document["last"].update(damage)))
    assert says in details(found)["record"]
    assert failed(found) == {"record"}
    assert how(found)["read-out"] == "proved"


@pytest.mark.parametrize(
    "damage", [{"kept": "ab"}, {"kept": [[0], [0, 1]]}, {"kept": [0.5, 1]}, {"kept": [2**70]}, {"changed": "x"}]
)
def test_a_layer_that_does_not_say_which_states_stayed(damage, last, tiny, half):
    def change(document):
        document["last"]["layers"][0].update(damage)

    detail = details(verdict(last, tiny, rewritten(half, nothing, describe=change)))["record"]
    assert f"layer {SEQ[:-1]} does not say which states stayed" in detail


@pytest.mark.parametrize("damage", [{"history": 3}, {"history": [3]}, {"layers": 3}, {"layers": [3]}])
def test_a_description_with_no_list_where_one_belongs_is_a_bad_file(damage, last, tiny, half):
    rewritten(half, nothing, describe=lambda document: document["last"].update(damage))
    code, out, err = last("verify", tiny, half)
    assert (code, out) == (3, "")
    assert "must be a list of mappings" in err


def test_layers_that_no_record_tells_of(last, tiny, half):
    found = verdict(last, tiny, rewritten(half, nothing, describe=lambda d: d["last"]["layers"].pop()))
    assert "no record says which of its states stayed" in details(found)["kept states"]


def test_rows_of_kept_states_for_more_channels_than_there_are(last, tiny, half):
    found = verdict(
        last, tiny, rewritten(half, nothing, describe=lambda d: d["last"]["layers"][0].update(kept=[[0, 1], [0, 1]]))
    )
    assert "2 rows of kept states for 1 index sets" in details(found)["kept states"]


def test_a_record_of_an_old_version_says_less_and_is_no_failure(last, tiny, half):
    def old(document):
        for key in ("states_before", "states_after", "ratio", "options"):
            del document["last"][key]

    found = verdict(last, tiny, rewritten(half, nothing, describe=old))
    assert failed(found) == set()
    assert how(found)["selection"] == "trusted"


def test_an_option_of_a_later_version_is_passed_over(last, tiny, half):
    found = verdict(last, tiny, rewritten(half, nothing, describe=lambda d: d["last"]["options"].update(later=1)))
    assert failed(found) == set()
    assert how(found)["selection"] == "recomputed"


@pytest.mark.parametrize("change", [{"method": "mine"}, {"refit": "mine"}, {"states_after": None}])
def test_calibration_inputs_do_not_help_where_the_record_names_nothing_to_compute(change, last, tiny, half, data):
    rewritten(half, nothing, describe=lambda document: document["last"].update(change))
    found = verdict(last, tiny, half, more=("--calibration", data))
    assert failed(found) == set()
    assert how(found)["read-out"] == "proved"


def written(name, number, path):
    case, family = CASES[name][number], family_named(name)
    arrays = case.build(np.random.default_rng(7))
    description = {"family": name, **config_of(family, arrays, **case.changes)}
    sources = [TensorSource.of(key, array) for key, array in arrays.items()]
    containers.write(path, sources, metadata={containers.DESCRIPTION_KEY: json.dumps(description)})
    return path


@pytest.mark.parametrize("refit", ["none", "h2"])
def test_coupled_states_are_compared_as_they_are_recomputed(refit, last, tmp_path):
    original = written("s4_dplr", 0, tmp_path / "d.safetensors")
    small = tmp_path / "p.safetensors"
    assert last("prune", original, "--ratio", "0.5", "--refit", refit, "--out", small, "-q")[0] == 0
    found = verdict(last, original, small)
    assert failed(found) == set()
    assert how(found)["read-out"] == "recomputed"

    def moved(arrays):
        for name in arrays:
            if "A_imag" in name:
                arrays[name] = arrays[name] + np.float32(0.3)

    detail = details(verdict(last, original, rewritten(small, moved)))["kept states"]
    assert "its poles or input maps are not ORIGINAL's" in detail


def test_another_form_than_the_flags_ask_for_is_said(last, tmp_path):
    original = written("s4_dplr", 0, tmp_path / "d.safetensors")
    small = tmp_path / "p.safetensors"
    assert last("prune", original, "--ratio", "0.5", "--set", "form=s4", "--out", small, "-q")[0] == 0
    (said,) = [check for check in verdict(last, original, small)["checks"] if check["name"] == "description"]
    assert (said["ok"], said["detail"]) == (True, "s4_dplr written as s4")


def test_a_model_of_another_family_is_none_of_originals(last, tiny, tmp_path):
    other = written("s4d", 0, tmp_path / "d.safetensors")
    detail = details(verdict(last, tiny, other))["description"]
    assert detail == "PRUNED is of the family s4d, ORIGINAL of s5"


def test_poles_that_a_format_cannot_move_are_not_believed_to_have_moved(last, tmp_path):
    original = written("lru", len(CASES["lru"]) - 1, tmp_path / "l.safetensors")
    small = tmp_path / "p.safetensors"
    code, _, err = last("prune", original, "--ratio", "0.5", "--out", small, "-q")
    assert code == 0, err

    def louder(arrays):
        for name in arrays:
            if name.rpartition(".")[2].startswith("C"):
                arrays[name] = 2 * arrays[name]

    def balanced(document):
        document["last"]["method"] = "balanced"
        for layer in document["last"]["layers"]:
            layer["changed"] = "all"

    detail = details(verdict(last, original, rewritten(small, louder, describe=balanced)))["kept states"]
    assert "the format holds only those that were there" in detail


@pytest.mark.parametrize(
    ("found", "same"),
    [
        ([[0, 1], [2, 3]], True),
        ([[0, 1], [2, 4]], True),  # 3 and 4 have the same score
        ([[0, 2], [2, 3]], False),
        ([[0], [2]], False),
        ([[0, 1, 4], [2, 3, 4]], False),
        ([[0, 1]], False),
    ],
)
def test_only_states_that_tie_may_be_exchanged(found, same):
    score = np.array([[5.0, 4, 3, 2, 1], [1, 1, 5, 4, 4 + 1e-9]])
    assert _same_but_ties(np.array(found), np.array([[0, 1], [2, 3]]), score) is same


def test_a_layer_of_an_earlier_pruning_that_is_no_mapping():
    newest = {"layers": [], "history": [{"layers": [3]}]}
    checkpoint = SimpleNamespace(provenance=newest, path="p.safetensors")
    with pytest.raises(InputError, match=r"p\.safetensors: the record of its pruning is damaged: a layer is 3\."):
        chain(checkpoint)


def test_poles_moved_by_a_refit_of_later_versions_are_not_computed_anew(last, tiny):
    code, _, err = last("prune", tiny, "--method", "balanced", "--ratio", "0.5", "--out", "p.safetensors", "-q")
    assert code == 0, err
    small = tiny.with_name("p.safetensors")
    assert how(verdict(last, tiny, small))["kept states"] == "recomputed"
    rewritten(small, nothing, describe=lambda document: document["last"].update(refit="later"))
    assert how(verdict(last, tiny, small)).get("kept states") != "recomputed"


def test_a_layer_agrees_with_what_is_computed_anew_in_its_states_and_in_its_numbers(monkeypatch):
    system, other = models.systems()
    prover = Prover(SimpleNamespace(systems=[system]), SimpleNamespace(reader=SimpleNamespace(tensors={})), ())
    monkeypatch.setattr(prover, "_stored", lambda index, expected: expected.system)
    monkeypatch.setattr(prover, "_rounding", lambda index: 0.0)
    found = Reduction(np.arange(6)[None], system, "all")
    assert prover._agreeing(0, found, found).readout == "recomputed"
    proof = prover._agreeing(0, found, Reduction(found.kept + 1, system, "all"))
    assert (proof.ok, proof.detail) == (False, "other states stay than are kept when computed anew")
    proof = prover._agreeing(0, found, Reduction(found.kept, other, "all"))
    assert not proof.ok
    assert "(relative H2) from what is computed anew" in proof.detail


def test_no_read_out_of_a_selective_layer_is_computed_anew_without_inputs():
    selective = SimpleNamespace(systems=[SimpleNamespace(time_invariant=False)])
    prover = Prover(selective, SimpleNamespace(reader=SimpleNamespace(tensors={})), ())
    assert prover._refitted(0, SimpleNamespace(kept=np.arange(3)[None])) is None
