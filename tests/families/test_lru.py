from __future__ import annotations

import numpy as np
import pytest

from lastcli.engine import criteria
from lastcli.engine.simulate import simulate
from lastcli.engine.system import Reduction
from lastcli.errors import UnsupportedModelError
from lastcli.families import detect
from lastcli.families.lru.family import LRU
from tests import oracles
from tests.builders import lru
from tests.builders.named import Arrays, infos, updated
from tests.families.rebuilding import (
    config_of,
    keep,
    layers_of,
    masked,
    pruned,
    rebuilt,
    single,
    some_kept,
    systems_of,
)
from tests.systems import random_system

FAMILY = LRU()


def build(spelling: str, seed: int = 0) -> Arrays:
    return lru.SPELLINGS[spelling](np.random.default_rng(seed))


def plain(arrays: Arrays, u: np.ndarray, before: bool) -> np.ndarray:
    """The layer by its definition, straight from the tensors: u (L, m) → y (L, p), float64."""
    t = {name.replace("]", "").split("/")[-1].split(".")[-1]: np.asarray(a) for name, a in arrays.items()}

    def value(*keys: str) -> np.ndarray:
        stored = t[next(key for key in keys if key in t)]
        return stored if stored.dtype.kind == "c" else stored[..., 0].astype(float) + 1j * stored[..., 1]

    B = t["B_re"].astype(float) + 1j * t["B_im"] if "B_re" in t else value("B", "Bp")
    C = t["C_re"].astype(float) + 1j * t["C_im"] if "C_re" in t else value("C")
    D = np.diag(t["D"]) if t["D"].ndim == 1 else t["D"]
    x, y = np.zeros(len(t["nu_log"]), complex), []
    for step in u:
        following = np.exp(-np.exp(t["nu_log"].astype(float)) + 1j * np.exp(t["theta_log"].astype(float))) * x
        following = following + np.exp(t["gamma_log"].astype(float)) * (B @ step)
        y.append((C @ (x if before else following)).real + D @ step)
        x = following
    return np.stack(y)


@pytest.mark.parametrize("spelling", lru.SPELLINGS)
@pytest.mark.parametrize("delay", ["auto", "0", "1"])
def test_system_is_the_published_recurrence(spelling: str, delay: str) -> None:
    arrays = build(spelling)
    config = config_of(FAMILY, arrays, delay=delay)
    (system,) = systems_of(FAMILY, arrays, config)
    u = np.random.default_rng(1).normal(size=(9, system.inputs))
    before = delay == "1" or (delay == "auto" and spelling == "decodepfl")
    np.testing.assert_allclose(oracles.recurrence(system, u[None])[0], plain(arrays, u, before), atol=1e-12)


def test_forward_simulation_agrees_with_the_recurrence() -> None:
    arrays = build("decodepfl")
    (system,) = systems_of(FAMILY, arrays, config_of(FAMILY, arrays))
    u = np.random.default_rng(1).normal(size=(2, 70, system.inputs)).astype("f4")
    expected = np.stack([plain(arrays, sequence, before=True) for sequence in u])
    np.testing.assert_allclose(simulate(single(system), u), expected, atol=2e-5)


@pytest.mark.parametrize("spelling", lru.SPELLINGS)
def test_masked_equals_compacted(spelling: str) -> None:
    arrays = build(spelling)
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    kept = some_kept(system, 3)
    small = rebuilt(FAMILY, arrays, config, [Reduction(kept, keep(system, kept))])
    (compact,) = systems_of(FAMILY, small, config)
    assert compact.states == 3
    u = np.random.default_rng(2).normal(size=(2, 8, system.inputs))
    np.testing.assert_array_equal(compact.poles, keep(system, kept).poles)
    np.testing.assert_allclose(oracles.recurrence(compact, u), oracles.recurrence(masked(system, kept), u), atol=1e-13)


@pytest.mark.parametrize("spelling", lru.SPELLINGS)
def test_keeping_everything_gives_the_same_bytes(spelling: str) -> None:
    arrays = build(spelling)
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    same = rebuilt(FAMILY, arrays, config, [Reduction(np.arange(6)[None], system)])
    assert {name: a.tobytes() for name, a in same.items()} == {name: a.tobytes() for name, a in arrays.items()}


@pytest.mark.parametrize("spelling", lru.SPELLINGS)
def test_padding_adds_states_that_do_nothing(spelling: str) -> None:
    arrays = build(spelling)
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    kept = some_kept(system, 3)
    padded = rebuilt(FAMILY, arrays, config, [Reduction(kept, keep(system, kept))], size=5)
    (padded_system,) = systems_of(FAMILY, padded, config)
    assert padded_system.states == 5
    assert np.abs(padded_system.poles[:, 3:]).max() < 1
    assert not padded_system.B[:, 3:].any()
    assert not padded_system.C[..., 3:].any()


@pytest.mark.parametrize("spelling", lru.SPELLINGS)
def test_a_new_read_out_leaves_poles_and_input_alone(spelling: str) -> None:
    arrays = build(spelling)
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    kept = some_kept(system, 4)
    rng = np.random.default_rng(3)
    D = rng.normal(size=system.D.shape)
    D = D * np.eye(system.outputs) if system.feedthrough == "diagonal" else D
    wanted = keep(system, kept).replace(C=rng.normal(size=(1, 1, system.outputs, 4)) + 0.5j, D=D)
    small = rebuilt(FAMILY, arrays, config, [Reduction(kept, wanted, "readout")])
    (got,) = systems_of(FAMILY, small, config)
    np.testing.assert_array_equal(got.poles, wanted.poles)
    np.testing.assert_array_equal(got.B, wanted.B)
    np.testing.assert_allclose(got.C, wanted.C, rtol=1e-6)
    np.testing.assert_allclose(got.D, wanted.D, rtol=1e-6)


@pytest.mark.parametrize("spelling", lru.SPELLINGS)
def test_new_poles_survive_the_logarithms(spelling: str) -> None:
    arrays = build(spelling)
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    wanted = random_system(7, states=4, inputs=system.inputs, outputs=system.outputs).replace(D=system.D)
    # an ordinary one, a negative angle, a real positive and a real negative one
    wanted.poles[0] = [0.8 * np.exp(1j), 0.9 * np.exp(-0.3j), 0.7, -0.6]
    small = rebuilt(FAMILY, arrays, config, [Reduction(np.arange(4)[None], wanted, "all")])
    (got,) = systems_of(FAMILY, small, config)
    assert all(np.isfinite(array).all() for array in small.values())
    np.testing.assert_allclose(got.poles, wanted.poles, atol=2e-6)
    np.testing.assert_allclose(got.B, wanted.B, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(got.C, wanted.C, rtol=1e-6)
    gamma = next(a for name, a in small.items() if name.endswith("gamma_log"))
    np.testing.assert_allclose(np.exp(gamma) ** 2, 1 - np.abs(wanted.poles[0]) ** 2, rtol=1e-5)


def test_a_zero_pole_is_written_finite() -> None:
    arrays = build("flax")
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    wanted = keep(system, np.array([[0, 1]])).replace(poles=np.array([[0, 0.5j]]))
    small = rebuilt(FAMILY, arrays, config, [Reduction(np.array([[0, 1]]), wanted, "all")])
    (got,) = systems_of(FAMILY, small, config)
    assert all(np.isfinite(array).all() for array in small.values())
    np.testing.assert_allclose(got.poles, wanted.poles, atol=1e-7)


def test_a_pole_on_the_circle_cannot_be_stored() -> None:
    arrays = build("flax")
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    unstable = system.replace(poles=np.where(np.arange(6) == 2, 1.0, system.poles))
    with pytest.raises(UnsupportedModelError, match="Layer seq: an LRU cannot store the pole"):
        rebuilt(FAMILY, arrays, config, [Reduction(np.arange(6)[None], unstable, "all")])


def test_a_trained_initial_state_is_gathered_and_bars_new_poles() -> None:
    arrays = build("decodepfl")
    arrays["blocks.0.lru.x0_param"] = np.arange(6, dtype="c8")[None]
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    kept = np.array([[1, 4]])
    small = rebuilt(FAMILY, arrays, config, [Reduction(kept, keep(system, kept))])
    np.testing.assert_array_equal(small["blocks.0.lru.x0_param"], [[1, 4]])
    with pytest.raises(UnsupportedModelError, match="trained initial state"):
        rebuilt(FAMILY, arrays, config, [Reduction(kept, keep(system, kept), "all")])


def test_energies_are_norms_of_single_states() -> None:
    arrays = build("torch")
    (system,) = systems_of(FAMILY, arrays, config_of(FAMILY, arrays))
    hinf, h2 = criteria.hinf(system), criteria.h2(system)
    lags = np.arange(3000)
    for i in range(system.states):
        pole, b, c = system.poles[0, i], system.B[0, i], system.C[0, 0, :, i]
        # the rank-one subsystem c λ^k b: its energy, and its gain where it is largest, at the pole's own angle
        response = (np.linalg.norm(c) * np.linalg.norm(b)) * np.abs(pole) ** lags
        np.testing.assert_allclose(h2.ravel()[i], (response**2).sum(), rtol=1e-9)
        np.testing.assert_allclose(hinf.ravel()[i], response.sum() ** 2, rtol=1e-9)


def test_magnitudes_sum_the_stored_parameters() -> None:
    arrays = build("torch")
    (layer,) = layers_of(FAMILY, arrays, config_of(FAMILY, arrays))
    got = FAMILY.magnitudes(layer, config_of(FAMILY, arrays), arrays.__getitem__)
    expected = sum(arrays[key] ** 2 for key in ("nu_log", "theta_log", "gamma_log"))
    expected = expected + (np.abs(arrays["B"]) ** 2).sum(1) + (np.abs(arrays["C"]) ** 2).sum(0)
    np.testing.assert_allclose(got, expected[None], rtol=1e-6)


@pytest.mark.parametrize("spelling", lru.SPELLINGS)
def test_is_detected_by_its_names(spelling: str) -> None:
    assert detect(infos(build(spelling))).name == "lru"


@pytest.mark.parametrize(
    ("spelling", "gone", "named"),
    [("flax", "seq/B_im", "seq/B_im"), ("torch", "gamma_log", "gamma_log"), ("decodepfl", "blocks.0.lru.C", "lru.C")],
)
def test_a_wrong_spelling_names_the_family_and_the_tensor(spelling: str, gone: str, named: str) -> None:
    arrays = build(spelling)
    arrays["renamed"] = arrays.pop(gone)
    with pytest.raises(UnsupportedModelError, match=f"nearest family is lru.*{named}"):
        detect(infos(arrays))


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("nu_log", (6, 1), "one axis"),
        ("theta_log", (5,), "6 states on axis 0"),
        ("B", (3, 6), "6 states on axis 0"),
        ("C", (4, 5), "6 states on axis 1"),
        ("D", (4, 4), r"\(4, 3\)"),
    ],
)
def test_shapes_that_contradict_each_other_are_refused(name: str, shape: tuple[int, ...], says: str) -> None:
    arrays = build("torch")
    arrays[name] = np.zeros(shape, arrays[name].dtype)
    with pytest.raises(UnsupportedModelError, match=f"{name} has shape.*{says}"):
        layers_of(FAMILY, arrays, config_of(FAMILY, arrays))


def test_halves_of_two_widths_are_refused() -> None:
    arrays = build("flax") | {"seq/B_im": np.zeros((6, 3), "f4")}
    with pytest.raises(UnsupportedModelError, match=r"seq/B_im has shape.*a width of 4"):
        layers_of(FAMILY, arrays, config_of(FAMILY, arrays))


def test_a_file_without_layers_proves_nothing() -> None:
    assert FAMILY.infer(infos({"encoder.weight": np.zeros((4, 2), "f4")})) == {}


def test_a_real_input_matrix_is_refused() -> None:
    arrays = build("torch")
    arrays["B"] = arrays["B"].real.copy()
    with pytest.raises(UnsupportedModelError, match="complex, or real with a last axis of 2"):
        layers_of(FAMILY, arrays, config_of(FAMILY, arrays))


def test_optimizer_moments_are_no_layers() -> None:
    arrays = {f"params/{name}": a for name, a in build("flax").items()}
    moments = {f"opt_state/0/mu/{name}": a for name, a in arrays.items()}
    assert [layer.name for layer in layers_of(FAMILY, {**arrays, **moments}, {})] == ["params/seq"]


def test_layers_run_in_numeric_order() -> None:
    rng = np.random.default_rng(0)
    arrays = {f"blocks.{i}.lru.{name}": a for i in (0, 10, 2) for name, a in lru.torch_layer(rng, 3, 2, 2).items()}
    assert [layer.name for layer in layers_of(FAMILY, arrays, {})] == [f"blocks.{i}.lru" for i in (0, 2, 10)]


def test_untouched_tensors_stay_out_of_a_rebuild() -> None:
    arrays = lru.torch_model(np.random.default_rng(0))
    small = pruned(FAMILY, arrays, config_of(FAMILY, arrays), 3)
    assert set(small) == set(updated(arrays, {}))
    changed = {name for name in arrays if small[name].shape != arrays[name].shape}
    assert all(".lru." in name and not name.endswith(".D") for name in changed)
    assert len(changed) == 10
