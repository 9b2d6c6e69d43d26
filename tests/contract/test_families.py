"""What every family in the registry promises: its description, its capabilities, and files that hold what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from lastcli import api, containers
from lastcli.containers.base import TensorSource
from lastcli.engine.system import DiagonalSystem, Reduction
from lastcli.errors import UnsupportedModelError, UsageError
from lastcli.families import FAMILIES, detect, family_named
from lastcli.families.base import Family
from lastcli.families.parts.storage import store
from tests import oracles
from tests.builders.families import CASES, SELECTIVE, Case
from tests.builders.named import Arrays, infos, updated
from tests.families.rebuilding import config_of, keep, layers_of, masked, some_kept, systems_of

ROOT = Path(__file__).parents[2]
EVERY = [pytest.param(name, case, id=f"{name}: {case.name}") for name, cases in CASES.items() for case in cases]
FIRST = [pytest.param(name, cases[0], id=name) for name, cases in CASES.items()]
# Written in another form than they are read in, because their states are coupled: nothing there can be a plain gather.
REWRITTEN = ("s4_dplr", "annotated_s4")
HALF_READ_OUTS = [
    pytest.param(name, cases[0], id=name) for name, cases in CASES.items() if name not in (*REWRITTEN, "s5_pytorch")
]
GATHERED = [pytest.param(name, cases[0], id=name) for name, cases in CASES.items() if name not in REWRITTEN]

# Those that published code has without a direct term too; in the others it is a part of every layer.
WITHOUT_D = [
    pytest.param(name, case, id=f"{name}: {case.name}")
    for name, cases in CASES.items()
    for case in cases
    if name in ("linoss", "lru", "mega", "s4", "s4_dplr", "dss", "s4d", "complex_s4d")
    and case.name in (cases[0].name, "V1", "V0")
]


def opened(name: str, case: Case, dtype: Any = None) -> tuple[Family, Arrays, dict[str, Any]]:
    family, arrays = family_named(name), case.build(np.random.default_rng(7))
    if dtype is not None:
        arrays = {key: a.astype(dtype) if a.dtype.kind == "f" else a for key, a in arrays.items()}
    return family, arrays, config_of(family, arrays, **case.changes)


def rebuilt(family: Family, arrays: Arrays, config: dict[str, Any], reductions: list[Reduction]) -> Arrays:
    new: dict[str, np.ndarray | None] = {}
    for layer, reduction in zip(layers_of(family, arrays, config), reductions, strict=True):
        new |= family.rebuild(layer, config, arrays.__getitem__, reduction, reduction.system.states)
    return updated(arrays, new)


def reread(family: Family, arrays: Arrays, config: dict[str, Any]) -> list[DiagonalSystem]:
    """The systems of a rebuilt checkpoint, which may be another family's."""
    said = family.rebuilt_config(config)
    family = family_named(said.pop("family", family.name))
    return systems_of(family, arrays, config_of(family, arrays, **said))


def whole(system: DiagonalSystem, changed: str, **new: Any) -> Reduction:
    every = np.tile(np.arange(system.states), (system.sets, 1))
    return Reduction(every, system.replace(**new), changed)


def assert_same_output(got: DiagonalSystem, wanted: DiagonalSystem, tolerance: float) -> None:
    width = wanted.groups if wanted.multi else wanted.inputs
    u = np.random.default_rng(1).normal(size=(2, 9, width))
    expected = oracles.recurrence(wanted, u)
    np.testing.assert_allclose(oracles.recurrence(got, u), expected, atol=tolerance * np.abs(expected).max())


def test_every_family_has_a_builder() -> None:
    assert set(CASES) | set(SELECTIVE) == set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_entry_says_what_it_is(name: str) -> None:
    family = family_named(name)
    assert family.name == name
    for line in (family.title, family.help, family.source, family.page):
        assert line.strip() == line != ""
        assert "\n" not in line
    assert (ROOT / family.page).is_file()
    keys = [option.key for option in family.options]
    assert len(set(keys)) == len(keys)
    for option in family.options:
        assert option.help, option.key
        assert isinstance(option.default, option.kind), option.key
        assert not option.choices or option.default in option.choices, option.key


@pytest.mark.parametrize("name", FAMILIES)
def test_a_conversion_that_there_is_not_is_refused(name: str) -> None:
    family = family_named(name)
    known = ", ".join(family.converts_to)
    message = f"converts to {known}, not to 'nothing'" if known else "has no exact conversion to 'nothing', nor to any"
    with pytest.raises(UsageError, match=message):
        family.convert({}, {}, {}.__getitem__, "nothing")


@pytest.mark.parametrize(("name", "case"), [*EVERY, *(pytest.param(n, c[0], id=n) for n, c in SELECTIVE.items())])
def test_a_checkpoint_is_recognised_as_its_own_family(name: str, case: Case) -> None:
    _, arrays, _ = opened(name, case)
    assert detect(infos(arrays)).name == name


@pytest.mark.parametrize(("name", "case"), EVERY)
def test_moved_poles_are_refused_exactly_where_the_system_says_they_are_fixed(name: str, case: Case) -> None:
    family, arrays, config = opened(name, case)
    systems = systems_of(family, arrays, config)
    assert {system.fixed_poles for system in systems} == {case.fixed}
    assert case.fixed or {system.modes for system in systems} == {1}  # poles in pairs cannot move one by one
    moved = []
    for system in systems:
        inside = 0.9999 * system.poles / np.maximum(np.abs(system.poles), 1)
        moved.append(whole(system, "all", poles=inside, B=0.9 * system.B, C=1.1 * system.C))
    if not case.fixed:
        small = rebuilt(family, arrays, config, moved)
        for got, reduction in zip(reread(family, small, config), moved):
            assert_same_output(got, reduction.system, 1e-4)
        return
    for layer, reduction in zip(layers_of(family, arrays, config), moved):
        with pytest.raises(UnsupportedModelError) as raised:
            family.rebuild(layer, config, arrays.__getitem__, reduction, layer.states)
        assert str(raised.value) == family.refuses_moved_poles(layer, config)


@pytest.mark.parametrize(("name", "case"), EVERY)
def test_a_new_read_out_is_held_as_the_system_says(name: str, case: Case) -> None:
    family, arrays, config = opened(name, case)
    systems = systems_of(family, arrays, config)
    assert {system.real_readout for system in systems} == {case.real}
    factor = 1.25 if case.real else 1.25 - 0.5j
    new = []
    for system in systems:
        assert not system.real_readout or not np.any(system.C.imag)
        new.append(whole(system, "readout", C=factor * system.C, D=None if system.D is None else 2 * system.D))
    for got, reduction in zip(reread(family, rebuilt(family, arrays, config, new), config), new):
        assert_same_output(got, reduction.system, 1e-5)


@pytest.mark.parametrize(("name", "case"), WITHOUT_D)
def test_a_layer_without_a_direct_term_is_read_and_written_without_one(name: str, case: Case) -> None:
    family, arrays, config = opened(name, case)
    role = "omega" if name == "mega" else "D"
    direct = {layer.tensors[role] for layer in layers_of(family, arrays, config)}
    bare = {key: array for key, array in arrays.items() if key not in direct}
    without = config_of(family, bare, **case.changes)
    systems = systems_of(family, bare, without)
    for own, other in zip(systems, systems_of(family, arrays, config), strict=True):
        assert own.D is None
        assert own.feedthrough == "none"
        for field in ("poles", "B", "C"):
            np.testing.assert_array_equal(getattr(own, field), getattr(other, field))
    new = [whole(system, "readout", C=1.25 * system.C) for system in systems]
    small = rebuilt(family, bare, without, new)
    for got, reduction in zip(reread(family, small, without), new):
        assert got.D is None
        assert_same_output(got, reduction.system, 1e-5)


@pytest.mark.parametrize(("name", "case"), EVERY)
def test_the_compact_file_computes_what_the_masked_model_does(name: str, case: Case) -> None:
    family, arrays, config = opened(name, case)
    systems = systems_of(family, arrays, config)
    kept = [some_kept(system, 2, seed=i) for i, system in enumerate(systems)]
    small = rebuilt(family, arrays, config, [Reduction(k, keep(s, k)) for s, k in zip(systems, kept)])
    for got, system, k in zip(reread(family, small, config), systems, kept):
        assert got.states == 2
        assert_same_output(got, masked(system, k), 1e-5)


@pytest.mark.parametrize(("name", "case"), GATHERED)
def test_pruning_nothing_changes_no_byte(name: str, case: Case) -> None:
    family, arrays, config = opened(name, case)
    same = rebuilt(family, arrays, config, [whole(system, "none") for system in systems_of(family, arrays, config)])
    assert list(same) == list(arrays)
    for key, array in same.items():
        assert (array.shape, array.dtype, array.tobytes()) == (
            arrays[key].shape, arrays[key].dtype, arrays[key].tobytes()
        ), key  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize(("name", "case"), FIRST)
def test_half_precision_holds_kept_and_computed_values(name: str, case: Case, dtype: Any) -> None:
    family, arrays, config = opened(name, case, dtype)
    systems, layers = systems_of(family, arrays, config), layers_of(family, arrays, config)
    kept = [some_kept(system, 2, seed=i) for i, system in enumerate(systems)]
    fewer = [Reduction(k, keep(s, k)) for s, k in zip(systems, kept)]
    # Rounded poles of a form that is written anew count once for every step.
    digits = float(ml_dtypes.finfo(dtype).eps) * (20 if name in REWRITTEN else 2)
    for changed in ("none", "readout"):
        small = rebuilt(family, arrays, config, [Reduction(r.kept, r.system, changed) for r in fewer])
        own = {tensor for layer in layers for tensor in layer.tensors.values()} | (small.keys() - arrays.keys())
        for key in own & small.keys():
            assert small[key].dtype == (arrays[key].dtype if key in arrays else dtype), key
        for got, reduction in zip(reread(family, small, config), fewer):
            assert_same_output(got, reduction.system, digits)


@pytest.mark.parametrize(("name", "case"), FIRST)
def test_a_value_beyond_float16_is_refused(name: str, case: Case) -> None:
    family, arrays, config = opened(name, case, np.float16)
    systems = systems_of(family, arrays, config)
    # s5-pytorch has its read-out in native complex numbers, which are never half precision, and D beside it.
    louder = [{"C": 1e7 * s.C} for s in systems] if name != "s5_pytorch" else []
    for changes in (louder, [{"D": 1e7 * s.D} for s in systems if s.D is not None]):
        if changes:
            reductions = [whole(system, "readout", **new) for system, new in zip(systems, changes, strict=True)]
            with pytest.raises(UnsupportedModelError, match=r"^\S+: the new values do not fit into float16; use"):
                rebuilt(family, arrays, config, reductions)


def test_a_value_that_is_no_number_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"^layer/C: the new values do not fit into float32"):
        store(np.array([0.0, np.nan]), np.zeros(2, "f4"), "layer/C")


@pytest.mark.parametrize(("name", "case"), HALF_READ_OUTS)
def test_a_refit_that_float16_cannot_hold_writes_nothing(name: str, case: Case, tmp_path: Path) -> None:
    """All states alike: when half of them go, the rest must say twice as much, and 60,000 is what they say already."""
    family, arrays, config = opened(name, case, np.float16)
    systems = systems_of(family, arrays, config)
    arrays = rebuilt(family, arrays, config, [Reduction(np.zeros((s.sets, s.states), int), s) for s in systems])
    for layer in layers_of(family, arrays, config):
        for role, tensor in layer.tensors.items():
            if role in ("C", "C_re", "C_im", "W", "gamma"):
                values = np.abs(arrays[tensor].astype(float)) + 1
                arrays[tensor] = (6e4 * values / values.max()).astype(np.float16)
    path, out = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    containers.write(path, [TensorSource.of(key, array) for key, array in arrays.items()], metadata={})
    with (
        api.open(path, model={"family": name, **case.changes}) as checkpoint,
        pytest.raises(UnsupportedModelError, match="do not fit into float16"),
    ):
        api.prune(checkpoint, out, ratio=0.5, method="last", refit="h2")
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.safetensors"]
