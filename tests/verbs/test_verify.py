"""Whatever is not ORIGINAL with states removed is found, whatever the file says of itself."""

from __future__ import annotations

import numpy as np
import pytest

import lastcli
from lastcli import containers
from lastcli.containers.base import TensorSource
from tests.conftest import write_s5
from tests.verbs.rewriting import failed, how, rewritten, verdict, without_digests

pytestmark = pytest.mark.usefixtures("short_searches")

KINDS = [
    ("last", "none", ()),
    ("aire", "h2", ()),
    ("obs", "calibrated", ()),
    ("obs", "sequential", ()),
    ("last", "poles", ()),
    ("balanced", "none", ()),
    ("balanced-dc", "none", ()),
    ("balanced", "h2", ()),
    ("obs", "sequential", ("--match-output",)),
]
NAMES = [" + ".join([method, refit, *more]) for method, refit, more in KINDS]


@pytest.fixture
def calibration(tiny):
    path = tiny.with_name("c.npz")
    np.savez(path, x=np.random.default_rng(4).normal(size=(16, 9, 3)).astype(np.float32))
    return path


@pytest.fixture
def pruned(last, tiny, calibration):
    """`pruned(method, refit, more)`: the tiny S5 pruned to half."""

    def make(method, refit, more=(), source=tiny, out="p.safetensors"):
        code, _, err = last(
            "prune", source, "--method", method, "--refit", refit, "--ratio", "0.5", "--calibration", calibration,
            "--out", out, "--force", *more,
        )  # fmt: skip
        assert code == 0, err
        return tiny.with_name(out)

    return make


@pytest.mark.parametrize(("method", "refit", "more"), KINDS, ids=NAMES)
def test_what_prune_wrote_verifies_and_each_check_says_how_it_is_known(last, tiny, pruned, method, refit, more):
    found = verdict(last, tiny, pruned(method, refit, more))
    assert failed(found) == set()
    known = how(found)
    assert (known["untouched"], known["record"], known["description"]) == ("proved", "proved", "proved")
    fitted = refit in ("calibrated", "sequential", "poles") or more
    expected = "trusted" if fitted else "proved" if refit == "none" and method == "last" else "recomputed"
    assert known["read-out"] == expected
    poles = "proved" if method in ("last", "aire", "obs") and refit != "poles" and not more else expected
    assert known["kept states"] == poles


@pytest.mark.parametrize(("method", "refit", "more"), KINDS[2:5], ids=NAMES[2:5])
def test_calibration_inputs_given_again_make_a_fit_recomputed(last, tiny, calibration, pruned, method, refit, more):
    path = without_digests(pruned(method, refit, more))
    assert failed(verdict(last, tiny, path)) != set()
    found = verdict(last, tiny, path, more=("--calibration", calibration))
    assert failed(found) == set()
    assert how(found)["read-out"] == "recomputed"


def garbage(arrays):
    rng = np.random.default_rng(1)
    for name in arrays:
        if name.endswith("layers_1/seq/C"):
            arrays[name] = rng.normal(size=arrays[name].shape).astype(arrays[name].dtype)


def louder(arrays):
    for name in arrays:
        if name.endswith("layers_0/seq/C"):
            arrays[name] = 10 * arrays[name]


def direct(arrays):
    for name in arrays:
        if name.endswith("layers_0/seq/D"):
            arrays[name] = -3 * arrays[name]


def silent(arrays):
    for name in arrays:
        if name.endswith(("layers_1/seq/D", "layers_1/seq/C")):
            arrays[name] = 0 * arrays[name]


def shifted(arrays):
    for name in arrays:
        if name.endswith("layers_1/seq/Lambda_im"):
            arrays[name] = arrays[name] + np.float32(0.01)


@pytest.mark.parametrize("change", [garbage, louder, direct, silent, shifted], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("method", "refit", "more"), KINDS, ids=NAMES)
def test_a_layer_that_was_altered_is_found(last, tiny, pruned, method, refit, more, change):
    path = without_digests(pruned(method, refit, more))
    without_digests(rewritten(path, change))
    assert failed(verdict(last, tiny, path)) & {"kept states", "read-out", "agreement"}


@pytest.mark.parametrize("change", [garbage, direct, silent], ids=lambda f: f.__name__)
def test_an_altered_layer_is_found_without_a_record_too(last, tiny, pruned, change):
    def forget(document):
        document.pop("last", None)

    path = pruned("last", "none")
    assert failed(verdict(last, tiny, rewritten(path, lambda arrays: None, describe=forget))) == set()
    assert failed(verdict(last, tiny, rewritten(path, change, describe=forget))) & {"kept states", "read-out"}


def test_an_h2_refit_without_a_record_is_computed_anew(last, tiny, pruned):
    path = rewritten(pruned("last", "h2"), lambda arrays: None, describe=lambda document: document.pop("last"))
    found = verdict(last, tiny, path)
    assert failed(found) == set()
    assert how(found)["read-out"] == "recomputed"


def test_a_changed_byte_is_found_by_its_hash_when_the_file_is_read(last, tiny, pruned):
    path = pruned("obs", "calibrated")
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    code, out, err = last("verify", tiny, path)
    assert code in (1, 3)
    assert "sha256" in out + err


@pytest.mark.parametrize(
    ("lie", "check"),
    [
        (lambda d: d["last"]["layers"][1].update(changed="readout"), set()),
        (lambda d: d["last"].update(method="nonsense"), set()),
        (lambda d: d["last"]["layers"][0].update(kept=[-1, 0]), {"kept states"}),
        (lambda d: d["last"]["layers"][0].update(kept=[1, 0]), {"kept states"}),
        (lambda d: d["last"]["layers"][0].update(kept=[0, 99]), {"kept states"}),
        (lambda d: d["last"].update(states_after=3), {"shapes"}),
        (lambda d: d["last"].update(states_before=99), {"agreement"}),
        (lambda d: d["last"].update(ratio=0.9), {"agreement"}),
        (lambda d: d["last"].update(sha256="0" * 64), {"record"}),
        (lambda d: d["last"].update(method="aire"), {"selection"}),
        (lambda d: d.update(discretization="bilinear"), {"description"}),
        (lambda d: d.update(clip_eigs=True), {"description"}),
    ],
)
def test_a_record_that_lies_is_found_or_makes_no_difference(last, tiny, pruned, lie, check):
    path = pruned("last", "none")
    found = verdict(last, tiny, rewritten(path, lambda arrays: None, describe=lie))
    assert check <= failed(found)
    assert bool(failed(found)) == bool(check) or failed(found) <= {"agreement"}


def test_a_refit_where_the_record_says_none_is_found(last, tiny, pruned):
    def lie(document):
        document["last"].update(refit="none", method="last")

    assert failed(verdict(last, tiny, rewritten(pruned("last", "h2"), lambda arrays: None, describe=lie)))


@pytest.mark.parametrize("distance", [1e-4, 1e-6])
def test_a_slow_pole_that_moved_a_little_is_found(last, tmp_path, monkeypatch, distance):
    monkeypatch.chdir(tmp_path)

    def slow(arrays):
        for name in arrays:
            if name.endswith("layers_0/seq/Lambda_re"):
                arrays[name][:] = -np.linspace(1, 2, len(arrays[name])) * distance

    original = write_s5(tmp_path / "m.safetensors", change=slow, clip_eigs=False)
    assert last("prune", original, "--method", "uniform-hinf", "--ratio", "0.4", "--out", "p.safetensors")[0] == 0
    before = verdict(last, original, "p.safetensors")
    assert before["ok"]

    def slower(arrays):
        for name in arrays:
            if name.endswith("layers_0/seq/Lambda_re"):
                arrays[name][0] *= 0.01

    found = verdict(last, original, rewritten(tmp_path / "p.safetensors", slower))
    assert "kept states" in failed(found)
    # the certificate is the file's own: a hundred times slower, a hundred times as loud
    assert found["layers"][0]["hinf_error"] > 10 * max(before["layers"][0]["hinf_error"], 1e-9)


def test_a_file_pruned_twice_is_compared_with_any_of_its_ancestors(last, tiny, pruned):
    one = pruned("last", "none", out="one.safetensors")
    code, _, err = last("prune", one, "--ratio", "0.4", "--out", "two.safetensors")
    assert code == 0, err
    for ancestor in (tiny, one):
        found = verdict(last, ancestor, "two.safetensors")
        assert failed(found) == set()
        assert how(found)["read-out"] == "proved"
    assert "in 2 prunings" in found["checks"][0]["detail"] or "in 2 prunings" in verdict(
        last, tiny, "two.safetensors"
    )["checks"][0]["detail"]  # fmt: skip
    assert failed(verdict(last, tiny, rewritten(tiny.with_name("two.safetensors"), louder)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("method", "refit"), [("last", "none"), ("aire", "h2"), ("obs", "calibrated")])
def test_half_precision_verifies(last, tiny, calibration, pruned, dtype, method, refit):
    import ml_dtypes

    half = tiny.with_name("half.safetensors")
    kind = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
    with containers.open_reader(tiny) as reader:
        sources = [TensorSource.of(name, reader.read(name).astype(kind)) for name in reader.tensors]
        containers.write(half, sources, metadata=reader.metadata)
    found = verdict(last, half, pruned(method, refit, source=half))
    assert failed(found) == set()


def test_flags_describe_original_and_a_file_that_describes_itself_is_taken_at_its_word(last, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_s5(tmp_path / "m.safetensors", describe=False, conj_sym=False)
    said = ["--set", "conj_sym=false", "--set", "activation=half_glu1"]
    assert last("prune", "m.safetensors", "--ratio", "0.5", "--out", "p.safetensors", *said)[0] == 0
    assert verdict(last, "m.safetensors", "p.safetensors", more=said)["ok"]
    assert failed(verdict(last, "m.safetensors", "p.safetensors")) >= {"description"}


def test_outputs_that_are_not_finite_fail(last, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def spoil(arrays):
        for name in arrays:
            if name.endswith("decoder/bias"):
                arrays[name][0] = np.nan

    write_s5(tmp_path / "m.safetensors", change=spoil)
    with lastcli.open("m.safetensors") as model:
        lastcli.prune(model, "p.safetensors", ratio=0.5)
    found = verdict(last, "m.safetensors", "p.safetensors")
    assert "equal outputs" in failed(found)
    assert found["max_abs_difference"] is None
