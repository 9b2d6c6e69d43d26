"""Files with names, axes and parametrisations of their own, read and written through a map as the family itself."""

from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import yaml

from lastcli.engine.reductions import truncate
from lastcli.engine.system import Reduction
from lastcli.errors import InputError, UnsupportedModelError
from lastcli.families import family_named, mapped
from lastcli.families.base import Family
from lastcli.families.mapped.expressions import parse
from lastcli.families.mapped.family import _written
from lastcli.families.mapped.map import Part, parse_map
from lastcli.families.mapped.suggest import suggest
from lastcli.families.mapped.vocabulary import _parts
from tests.builders import lru
from tests.builders.annotated import annotated_model
from tests.builders.named import Arrays, infos
from tests.builders.s4d import s4d_layer
from tests.builders.s5 import s5_checkpoint
from tests.families.rebuilding import DOCS, config_of, forward_of, layers_of, rebuilt, some_kept, systems_of

RNG = np.random.default_rng(5)


def seen(family: str, said: dict[str, Any]) -> Family:
    return mapped(family_named(family), parse_map(said, "the map"))


def pair(array: np.ndarray) -> np.ndarray:
    return array[..., 0] + 1j * array[..., 1]


def nnx() -> tuple[Arrays, Arrays, dict[str, Any]]:
    """The annotated S4 with the channels first, P and B complex, C under another name; and as it is published."""
    own = annotated_model(np.random.default_rng(1), "s4")
    file = {}
    for name, a in own.items():
        if "/seq/" in name:
            turned = a.transpose(1, 0, *range(2, a.ndim))
            name = name.replace("/seq/C", "/seq/C_real_imag")
            file[name] = np.ascontiguousarray(turned)
        else:
            file[name] = a
    turned = {role: [1, 0] for role in ("Lambda_re", "Lambda_im", "P", "B", "log_step", "D")}
    layers = next(name for name in own if name.endswith("/seq/C")).removesuffix("/C").replace("layers_0", "layers_*")
    return own, file, {"layers": layers, "names": {"C": "C_real_imag"}, "axes": turned | {"C": [1, 0, 2]}}


def anew(dtype: str = "c8") -> tuple[Arrays, Arrays, dict[str, Any]]:
    """S4D with a complex A in the place of its logarithm and frequency, steps as they are, C in two tensors."""
    own = s4d_layer(np.random.default_rng(2), flat=True)
    prefix = next(name for name in own if name.endswith("log_dt")).removesuffix("log_dt")
    real, C = np.exp(own[f"{prefix}log_A_real"].astype(float)), own[f"{prefix}C"]
    half = np.dtype(dtype).type(0).real.dtype
    file = {
        "net.0.Lam": (-real + 1j * own[f"{prefix}A_imag"]).astype(dtype),
        "net.0.c_r": C[..., 0].astype(half),
        "net.0.c_i": C[..., 1].astype(half),
        "net.0.dt": np.exp(own[f"{prefix}log_dt"].astype(float)).astype(half)[:, None],
        "net.0.skip": own[f"{prefix}D"].astype(half),
    }
    names = {
        "log_A_real": "log(-real(Lam))",
        "A_imag": "imag(Lam)",
        "C": "complex(c_r, c_i)",
        "log_dt": "log(dt)",
        "D": "skip",
    }
    return own, file, {"layers": "net.*", "names": names, "axes": {"log_dt": [0]}}


def test_axes_and_names_of_a_stranger_are_the_family_itself() -> None:
    own, file, said = nnx()
    family = family_named("annotated_s4")
    config = config_of(family, own, kernel_length=16)
    before, after = (systems_of(f, a, config) for f, a in ((family, own), (seen("annotated_s4", said), file)))
    for one, other in zip(before, after, strict=True):
        for field in ("poles", "B", "C", "D"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    (layer, *_) = layers_of(seen("annotated_s4", said), file, config)
    assert layer.tensors["C"].endswith("seq/C_real_imag")
    assert set(layer.tensors.values()) <= file.keys()


@pytest.mark.parametrize("dtype", ["c8", "c16"])
def test_functions_of_tensors_are_the_family_itself(dtype: str) -> None:
    own, file, said = anew(dtype)
    (one,) = systems_of(family_named("s4d"), own, config_of(family_named("s4d"), own))
    family = seen("s4d", said)
    (other,) = systems_of(family, file, config_of(family, file))
    for field in ("poles", "C", "D"):
        np.testing.assert_allclose(getattr(other, field), getattr(one, field), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["c8", "c16"])
def test_what_is_only_gathered_keeps_its_bits_through_logarithms(dtype: str) -> None:
    _, file, said = anew(dtype)
    family = seen("s4d", said)
    config = config_of(family, file)
    (system,) = systems_of(family, file, config)
    kept = some_kept(system, 3)
    small = rebuilt(family, file, config, [truncate(system, kept)])
    rows = np.arange(len(kept))[:, None]
    assert small.keys() == file.keys()
    for name in ("net.0.Lam", "net.0.c_r", "net.0.c_i"):
        assert small[name].tobytes() == np.ascontiguousarray(file[name][rows, kept]).tobytes()
    for name in ("net.0.dt", "net.0.skip"):
        assert small[name].tobytes() == file[name].tobytes()


def test_moved_poles_are_written_under_the_files_own_names() -> None:
    _, file, said = anew()
    family = seen("s4d", said)
    config = config_of(family, file)
    (system,) = systems_of(family, file, config)
    every = np.tile(np.arange(system.states), (system.sets, 1))
    moved = system.replace(poles=0.9 * system.poles, C=(1 + 0.2j) * system.C, D=2 * system.D)
    small = rebuilt(family, file, config, [Reduction(every, moved, "all")])
    assert {name: (a.shape, a.dtype) for name, a in small.items()} == {n: (a.shape, a.dtype) for n, a in file.items()}
    (again,) = systems_of(family, small, config)
    for field in ("poles", "C", "D"):
        np.testing.assert_allclose(getattr(again, field), getattr(moved, field), rtol=2e-5)


def test_padding_goes_through_the_map() -> None:
    _, file, said = anew()
    family = seen("s4d", said)
    config = config_of(family, file)
    (system,) = systems_of(family, file, config)
    small = rebuilt(family, file, config, [truncate(system, some_kept(system, 3))], size=5)
    assert small["net.0.Lam"].shape == (len(system.poles), 5)
    np.testing.assert_allclose(small["net.0.Lam"][:, 3:].real, -0.5, rtol=1e-6)
    assert not small["net.0.c_r"][:, 3:].any()


def test_pairs_and_halves() -> None:
    """S5 with native complex numbers, poles in one tensor; its own form is real with a last axis of two."""
    own = s5_checkpoint(np.random.default_rng(3))
    file = {name: a for name, a in own.items() if "/seq/" not in name}
    for name, a in own.items():
        if "/seq/" in name and name.endswith(("/B", "/C")):
            file[name] = pair(a).T.astype("c8")
        elif name.endswith("Lambda_re"):
            file[name.replace("Lambda_re", "eigs")] = (a + 1j * own[name.replace("_re", "_im")]).astype("c8")
        elif "/seq/" in name and not name.endswith("Lambda_im"):
            file[name] = a
    said = {
        "layers": "params.encoder.layers_*.seq",
        "names": {"Lambda_re": "real(eigs)", "Lambda_im": "imag(eigs)", "B": "pair(B)", "C": "pair(C)"},
        "axes": {"B": [1, 0, 2], "C": [1, 0, 2]},
    }
    x = np.random.default_rng(4).normal(size=(2, 9, own["params/encoder/encoder/kernel"].shape[0])).astype("f4")
    family = seen("s5", said)
    config = config_of(family, file)
    theirs, _ = forward_of(family_named("s5"), own, config_of(family_named("s5"), own), x)
    ours, _ = forward_of(family, file, config, x)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    systems = systems_of(family, file, config)
    small = rebuilt(family, file, config, [truncate(s, some_kept(s, 2)) for s in systems])
    assert small["params/encoder/layers_0/seq/eigs"].shape == (2,)
    assert small["params/encoder/layers_0/seq/B"].shape[1] == 2


def test_what_lies_around_the_layers_may_be_named_by_the_map_too() -> None:
    """Every path is a layer of the map that has what it names, so the model's own parts have theirs."""
    own = lru.torch_model(np.random.default_rng(6))
    file = {name.replace("nu_log", "nulog").replace("encoder.", "embed."): a for name, a in own.items()}
    said = {"layers": ["blocks.*", ""], "names": {"lru.nu_log": "lru.nulog"}}
    with pytest.raises(UnsupportedModelError, match="the top of the file does not have"):
        layers_of(seen("lru", said), file, {})
    family = seen("lru", {"layers": "blocks.*.lru", "names": {"nu_log": "nulog"}})
    file = {name.replace("embed.", "encoder."): a for name, a in file.items()}
    config = config_of(family, file)
    assert config["architecture"] == "deep-ssm"
    x = np.random.default_rng(7).normal(size=(2, 12, 2)).astype("f4")
    theirs, _ = forward_of(family_named("lru"), own, config, x)
    ours, _ = forward_of(family, file, config, x)
    np.testing.assert_array_equal(ours, theirs)
    turned = {
        name.replace("encoder.weight", "embed"): a.T if name == "encoder.weight" else a for name, a in own.items()
    }
    said = {"layers": "", "names": {"encoder.weight": "embed"}, "axes": {"encoder.weight": [1, 0]}}
    ours, _ = forward_of(seen("lru", said), turned, config, x)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    # a function of a tensor around the layers is no tensor that the model could be given
    made = seen("lru", {"layers": "", "names": {"encoder.weight": "-embed"}})
    turned["embed"] = own["encoder.weight"]
    assert made.forward(infos(turned), config, layers_of(made, turned, config)) is None


def test_a_name_of_the_family_that_means_something_else_is_not_seen() -> None:
    _, file, said = anew()
    file["net.0.A_imag"] = np.zeros((2, 2), "f4")
    family = seen("s4d", said)
    config = config_of(family, file)
    (system,) = systems_of(family, file, config)
    small = rebuilt(family, file, config, [truncate(system, some_kept(system, 2))])
    assert small["net.0.A_imag"].tobytes() == file["net.0.A_imag"].tobytes()


def test_numbers_that_the_files_dtype_cannot_hold_are_refused() -> None:
    _, file, said = anew()
    file = {name: a.astype(np.float16) if a.dtype.kind == "f" else a for name, a in file.items()}
    family = seen("s4d", said)
    config = config_of(family, file)
    (system,) = systems_of(family, file, config)
    every = np.tile(np.arange(system.states), (system.sets, 1))
    loud = Reduction(every, system.replace(C=1e7 * system.C), "readout")
    with pytest.raises(UnsupportedModelError, match=r"net\.0\.c_r: the new values do not fit into float16"):
        rebuilt(family, file, config, [loud])


def test_half_precision_goes_through_functions_and_back() -> None:
    _, file, said = anew()
    file = {name: a.astype(ml_dtypes.bfloat16) if a.dtype.kind == "f" else a for name, a in file.items()}
    family = seen("s4d", said)
    config = config_of(family, file)
    (system,) = systems_of(family, file, config)
    small = rebuilt(family, file, config, [truncate(system, some_kept(system, 4))])
    assert small["net.0.dt"].tobytes() == file["net.0.dt"].tobytes()


@pytest.mark.parametrize("before", ["", "module.", "model._orig_mod.", "params/"])
@pytest.mark.parametrize("layers", ["net.*", None])
def test_what_a_wrapper_puts_before_all_names_need_not_be_said(before: str, layers: str | None) -> None:
    _, file, said = anew()
    wrapped = {before + name: a for name, a in file.items()}
    wrapped |= {f"opt_state/mu/{name}": a for name, a in file.items()}
    family = seen("s4d", {**said, "layers": layers})
    (layer,) = layers_of(family, wrapped, config_of(family, wrapped))
    assert layer.name == f"{before}net.0"


def test_a_layer_at_the_top_of_the_file() -> None:
    _, file, said = anew()
    top = {name.removeprefix("net.0."): a for name, a in file.items()}
    for layers in ("", None):
        family = seen("s4d", {**said, "layers": layers})
        (layer,) = layers_of(family, top, config_of(family, top))
        assert (layer.name, layer.tensors["C"]) == ("layer", "c_r")


WRONG = [
    ({"names": {"C": ""}}, "names.C must be the name of a tensor"),
    ({"names": {"C": 3}}, "names.C must be the name of a tensor"),
    ({"names": ["C"]}, "names must be a mapping"),
    ({"names": {"C": "lgo(C)"}}, "no function 'lgo'. Did you mean 'log'"),
    ({"names": {"C": "log(C"}}, r"log\(…\) takes 1 tensors in brackets"),
    ({"names": {"C": "complex(a, b, c)"}}, r"complex\(…\) takes 1 or 2"),
    ({"names": {"C": "C C"}}, "goes on after a whole expression"),
    ({"names": {"C": "real(-C)"}}, r"write real\(NAME\) inside"),
    ({"names": {"C": "(" * 40}}, "a tensor name is missing"),
    ({"names": {"C": "-" * 40 + "C"}}, "a tensor name is missing"),
    ({"axes": {"C": "HN"}}, r"axes.C must be a list such as \[1, 0\]"),
    ({"axes": {"C": [0, 0]}}, "names an axis twice"),
    ({"axes": {"C": [True]}}, "must be a list such as"),
    ({"layers": 3}, "layers must be a path"),
]


@pytest.mark.parametrize(("said", "sentence"), WRONG)
def test_a_map_that_is_none_is_refused_in_one_sentence(said: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as raised:
        parse_map(said, "map.yaml")
    assert str(raised.value).startswith("map.yaml")


ELSEWHERE = [
    ({"layers": "net.*", "names": {"C": "c_x"}}, r"takes C from c_x, which net\.0\. does not have \(it has Lam"),
    ({"layers": "model.*"}, "no path is model"),
    ({"names": {"C": "c_x"}}, "no path has c_x"),
    ({"layers": "net.*", "names": {"C": "c_r"}, "axes": {"C": [2, 1, 0]}}, r"axes \[2, 1, 0\], but the tensor's shape"),
    ({"layers": "net.*", "names": {"C": "c_r"}, "axes": {"C": [1]}}, r"leaves out axis 0 of net\.0\.c_r"),
    ({"layers": "net.*", "names": {"C": "real(c_r)"}}, r"real takes a complex tensor, net\.0\.c_r is float32"),
    ({"layers": "net.*", "names": {"C": "log(Lam)"}}, r"log takes a real tensor, net\.0\.Lam is complex64"),
    ({"layers": "net.*", "names": {"C": "complex(c_r, dt)"}}, "complex takes real tensors alike"),
]


@pytest.mark.parametrize(("said", "sentence"), ELSEWHERE)
def test_a_map_of_another_file_is_refused_in_one_sentence(said: dict[str, Any], sentence: str) -> None:
    _, file, _ = anew()
    with pytest.raises(UnsupportedModelError, match=sentence):
        seen("s4d", said).match(infos(file))


@pytest.mark.parametrize("left_out", ["layers", "names", "axes", None])
def test_a_map_is_said_again_as_it_was(left_out: str | None) -> None:
    said = {key: value for key, value in anew()[2].items() if key != left_out}
    again = parse_map(said, "the map").document()
    assert parse_map(again, "again") == parse_map(said, "the map")
    assert again.keys() == said.keys()


def test_functions_and_what_undoes_them() -> None:
    z = RNG.normal(size=(3, 2)) + 1j * RNG.normal(size=(3, 2))
    file = {"z": z, "both": np.stack([z.real, z.imag], axis=-1), "dt": np.array([0.1, 2.0])}
    wanted = {"conj(z)": z.conj(), "-z": -z, "complex(both)": z, "exp(dt)": np.exp(file["dt"])}
    for text, values in wanted.items():
        expression = parse(f" {text} ", "here")
        np.testing.assert_allclose(expression.value(file.__getitem__), values)
        ((name, half, numbers),) = expression.undo(2 * values, "part")
        assert half == ""
        doubled = np.log(2 * values) if "exp" in text else 2 * file[name]
        np.testing.assert_allclose(numbers, doubled)
    with pytest.raises(UnsupportedModelError, match=r"part: the map makes it by exp\(…\), which cannot give -1 to 2"):
        parse("exp(dt)", "here").undo(np.array([-1.0, 2.0]), "part")


def test_a_tensor_that_would_be_half_changed_or_half_gone_is_refused() -> None:
    _, file, said = anew()
    file["net.0.freq"] = np.ascontiguousarray(file["net.0.Lam"].imag)
    family = seen("s4d", {**said, "names": said["names"] | {"A_imag": "freq"}})
    config = config_of(family, file)
    (system,) = systems_of(family, file, config)
    with pytest.raises(UnsupportedModelError, match=r"net\.0\.Lam: .* changes one half of its complex numbers only"):
        rebuilt(family, file, config, [truncate(system, some_kept(system, 3))])
    parts = {half: Part(half, parse(f"{half}(z)", "here")) for half in ("real", "imag")}
    z = np.ones(3, "c8")
    with pytest.raises(UnsupportedModelError, match="z: the new form of the layer needs one part of it only"):
        _written({"real": None, "imag": np.zeros(3)}, parts, {"z": z}.__getitem__)


def test_a_map_is_suggested_only_where_all_shapes_agree() -> None:
    shapes = {"Lambda": (4, 5), "C": (4, 5), "log_step": (4,), "D": (4,)}
    file = {f"net.0.{leaf}": np.ones(shape, "c8" if len(shape) == 2 else "f4") for leaf, shape in shapes.items()}
    found = suggest(infos(file)).description
    assert found is not None
    assert (found["family"], found["layers"]) == ("complex_s4d", "net.0")
    assert found["names"] == {"A": "Lambda", "log_dt": "log_step"}
    file["net.0.log_step"] = np.ones(11, "f4")
    assert suggest(infos(file)).description is None


def test_words_written_together_are_taken_apart() -> None:
    assert _parts("logdt") == ["log", "dt"]
    assert _parts("lambdare") == ["lambda", "re"]
    assert _parts("nothing") == ["nothing"]


def test_the_documented_maps_are_these(docs_maps: list[dict[str, Any]]) -> None:
    """docs/maps.md describes the two files of this test."""
    for said, (family, (_, file, _)) in zip(docs_maps, (("annotated_s4", nnx()), ("s4d", anew())), strict=True):
        if family == "annotated_s4":
            said = {**said, "layers": "params.layers_*.seq" if "params/layers_0/seq/D" in file else "layers_*.seq"}
        own = seen(family, said)
        options = {key: value for key, value in said.items() if key not in ("family", "layers", "names", "axes")}
        assert systems_of(own, file, config_of(own, file, **options))


@pytest.fixture
def docs_maps() -> list[dict[str, Any]]:
    text = (DOCS / "maps.md").read_text(encoding="utf-8")
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)]
