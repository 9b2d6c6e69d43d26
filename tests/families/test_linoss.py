from __future__ import annotations

import numpy as np
import pytest

from lastcli.engine import criteria
from lastcli.engine.reductions import refit
from lastcli.engine.simulate import simulate
from lastcli.engine.system import DiagonalSystem, Reduction
from lastcli.engine.white_noise import white_noise_moments
from lastcli.errors import UnsupportedModelError
from lastcli.families import detect
from lastcli.families.linoss.family import LinOSS
from tests import oracles
from tests.builders.linoss import linoss_layer, linoss_model
from tests.builders.named import Arrays, infos
from tests.families.rebuilding import (
    config_of,
    keep,
    layers_of,
    masked,
    rebuilt,
    single,
    some_kept,
    systems_of,
)

FAMILY = LinOSS()


def build(seed: int = 0) -> Arrays:
    return {f"ssm.{name}": a for name, a in linoss_layer(np.random.default_rng(seed)).items()}


def plain(arrays: Arrays, u: np.ndarray, scheme: str) -> np.ndarray:
    """The oscillators by their definition, velocity and position step by step: u (L, H) → y (L, H)."""
    t = {name.split(".")[-1]: a.astype(float) for name, a in arrays.items()}
    A, step = np.maximum(t["A_diag"], 0), 1 / (1 + np.exp(-t["steps"]))
    B, C = t["B"][..., 0] + 1j * t["B"][..., 1], t["C"][..., 0] + 1j * t["C"][..., 1]
    z, y, out = np.zeros(len(A), complex), np.zeros(len(A), complex), []
    for now in u:
        force = B @ now
        if scheme == "IM":
            # z' = z + Δ(-A y' + f), y' = y + Δ z': solved for the new velocity
            z = (z + step * (force - A * y)) / (1 + step**2 * A)
        else:
            z = z + step * (force - A * y)
        y = y + step * z
        out.append((C @ y).real + t["D"] * now)
    return np.stack(out)


@pytest.mark.parametrize("scheme", ["IM", "IMEX"])
def test_system_is_the_published_recurrence(scheme: str) -> None:
    arrays = build()
    (system,) = systems_of(FAMILY, arrays, config_of(FAMILY, arrays, discretization=scheme))
    assert (system.modes, system.states, system.poles.shape) == (2, 5, (1, 10))
    u = np.random.default_rng(1).normal(size=(40, 3))
    np.testing.assert_allclose(oracles.recurrence(system, u[None])[0], plain(arrays, u, scheme), atol=1e-11)


@pytest.mark.parametrize("scheme", ["IM", "IMEX"])
def test_forward_simulation_agrees_with_the_recurrence(scheme: str) -> None:
    arrays = build()
    (system,) = systems_of(FAMILY, arrays, config_of(FAMILY, arrays, discretization=scheme))
    u = np.random.default_rng(1).normal(size=(1, 70, 3)).astype("f4")
    np.testing.assert_allclose(simulate(single(system), u)[0], plain(arrays, u[0], scheme), atol=2e-4)


@pytest.mark.parametrize(("scheme", "step"), [("IM", 0.5), ("IMEX", 0.5), ("IMEX", 0.999)])
def test_poles_are_the_eigenvalues_of_the_step(scheme: str, step: float) -> None:
    arrays = build()
    arrays["ssm.A_diag"] = np.array([0.3, 1.0, 2.5, 4.2, 9.0], "f4")
    arrays["ssm.steps"] = np.full(5, np.log(step / (1 - step)), "f4")
    (system,) = systems_of(FAMILY, arrays, config_of(FAMILY, arrays, discretization=scheme))
    for i, A in enumerate(arrays["ssm.A_diag"].astype(float)):
        d = 1 / (1 + np.exp(-float(arrays["ssm.steps"][i])))
        M = np.array([[1, -d * A], [d, 1 - d * d * A]])
        if scheme == "IM":
            M = np.array([[1, -d * A], [d, 1]]) / (1 + d * d * A)
        np.testing.assert_allclose(
            np.sort_complex(system.poles[0, 2 * i : 2 * i + 2]), np.sort_complex(np.linalg.eigvals(M)), atol=1e-12
        )


def test_imex_conserves_energy_and_does_not_look_stable() -> None:
    arrays = build()
    (system,) = systems_of(FAMILY, arrays, config_of(FAMILY, arrays, discretization="IMEX"))
    assert np.all(np.abs(system.poles) >= 1)
    np.testing.assert_allclose(np.abs(system.poles), 1, atol=1e-12)


@pytest.mark.parametrize("scheme", ["IM", "IMEX"])
def test_no_stiffness_is_nearly_the_double_integrator(scheme: str) -> None:
    arrays = build()
    arrays["ssm.A_diag"][:2] = [0.0, -0.7]
    (system,) = systems_of(FAMILY, arrays, config_of(FAMILY, arrays, discretization=scheme))
    u = np.random.default_rng(1).normal(size=(100, 3))
    expected = plain(arrays, u, scheme)
    got = oracles.recurrence(system, u[None])[0]
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()


def test_masked_equals_compacted() -> None:
    arrays = build()
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    kept = some_kept(system, 3)
    small = rebuilt(FAMILY, arrays, config, [Reduction(kept, keep(system, kept))])
    (compact,) = systems_of(FAMILY, small, config)
    assert compact.states == 3
    u = np.random.default_rng(2).normal(size=(2, 12, 3))
    np.testing.assert_allclose(oracles.recurrence(compact, u), oracles.recurrence(masked(system, kept), u), atol=1e-13)


def test_keeping_everything_gives_the_same_bytes() -> None:
    arrays = build()
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    same = rebuilt(FAMILY, arrays, config, [Reduction(np.arange(5)[None], system)])
    assert {name: a.tobytes() for name, a in same.items()} == {name: a.tobytes() for name, a in arrays.items()}


def test_padding_adds_stable_states_that_do_nothing() -> None:
    arrays = build()
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    kept = some_kept(system, 2)
    (padded,) = systems_of(FAMILY, rebuilt(FAMILY, arrays, config, [Reduction(kept, keep(system, kept))], 4), config)
    assert padded.states == 4
    assert np.abs(padded.poles).max() < 0.99
    assert not padded.B[:, 4:].any()
    assert not padded.C[..., 4:].any()


def test_a_shared_read_out_is_written_and_a_split_one_refused() -> None:
    arrays = build()
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    kept = some_kept(system, 2)
    rng = np.random.default_rng(3)
    C = np.repeat(rng.normal(size=(1, 1, 3, 2)) + 0.5j, 2, axis=3)
    wanted = keep(system, kept).replace(C=C, D=np.diag([1.0, 2.0, 3.0])[None])
    (got,) = systems_of(FAMILY, rebuilt(FAMILY, arrays, config, [Reduction(kept, wanted, "readout")]), config)
    np.testing.assert_allclose(got.C, C, rtol=1e-6)
    np.testing.assert_array_equal(got.D, wanted.D)
    C[..., 0] *= 1.5
    with pytest.raises(UnsupportedModelError, match="one read-out for both poles"):
        rebuilt(FAMILY, arrays, config, [Reduction(kept, wanted.replace(C=C), "readout")])


def test_a_refit_finds_the_one_read_out_that_is_best() -> None:
    arrays = build()
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    kept = np.array([[0, 2, 3]])
    reduction = refit(system, kept, white_noise_moments(system))
    small = rebuilt(FAMILY, arrays, config, [reduction])
    (got,) = systems_of(FAMILY, small, config)

    def error(reduced: DiagonalSystem) -> float:
        return oracles.h2_of(oracles.difference(system, reduced), length=1500)

    best = error(got)
    assert best < 0.9 * error(keep(system, kept))
    # no step of C in any direction does better, as long as both poles share it
    rng = np.random.default_rng(3)
    for _ in range(5):
        step = np.repeat(rng.normal(size=(1, 1, 3, 3)) + 1j * rng.normal(size=(1, 1, 3, 3)), 2, axis=3)
        assert error(got.replace(C=got.C + 1e-3 * step)) > best


def test_free_poles_are_refused() -> None:
    arrays = build()
    config = config_of(FAMILY, arrays)
    (system,) = systems_of(FAMILY, arrays, config)
    with pytest.raises(UnsupportedModelError, match="cannot store freely chosen poles"):
        rebuilt(FAMILY, arrays, config, [Reduction(np.arange(5)[None], system, "all")])


def test_energies_are_norms_of_the_oscillators() -> None:
    arrays = build()
    (system,) = systems_of(FAMILY, arrays, config_of(FAMILY, arrays))
    hinf, h2 = criteria.hinf(system)[0], criteria.h2(system)[0]
    B, C = (arrays[f"ssm.{name}"].astype(float) @ [1, 1j] for name in "BC")
    for i in range(system.states):
        # the position of one oscillator after a unit force, from the definition
        one = {"ssm.B": np.array([[[1, 0]]]), "ssm.C": np.array([[[1, 0]]]), "ssm.D": np.zeros(1)}
        one |= {f"ssm.{name}": arrays[f"ssm.{name}"][[i]] for name in ("A_diag", "steps")}
        h = plain(one, np.eye(4000, 1), "IM")[:, 0]
        strength = (np.abs(B[i]) ** 2).sum() * (np.abs(C[:, i]) ** 2).sum()
        np.testing.assert_allclose(h2[i], strength * (h**2).sum(), rtol=1e-9)
        np.testing.assert_allclose(hinf[i], strength * np.abs(np.fft.rfft(h, 1 << 17)).max() ** 2, rtol=1e-4)


@pytest.mark.parametrize("layout", ["model", "bare", "later"])
def test_is_detected_by_its_names(layout: str) -> None:
    arrays = linoss_model(np.random.default_rng(0)) if layout == "model" else linoss_layer(np.random.default_rng(0))
    if layout == "later":
        arrays["dt"] = arrays.pop("steps")
    assert detect(infos(arrays)).name == "linoss"
    assert len(layers_of(FAMILY, arrays, {})) == (2 if layout == "model" else 1)


@pytest.mark.parametrize("gone", ["A_diag", "steps", "B"])
def test_a_wrong_spelling_names_the_family_and_the_tensor(gone: str) -> None:
    arrays = build()
    arrays["ssm.other"] = arrays.pop(f"ssm.{gone}")
    with pytest.raises(UnsupportedModelError, match=f"nearest family is linoss.*ssm.{gone}"):
        detect(infos(arrays))


@pytest.mark.parametrize(
    ("name", "shape"), [("A_diag", (5, 1)), ("steps", (4,)), ("B", (3, 5, 2)), ("C", (3, 5)), ("D", (5,))]
)
def test_shapes_that_contradict_each_other_are_refused(name: str, shape: tuple[int, ...]) -> None:
    arrays = build()
    arrays[f"ssm.{name}"] = np.zeros(shape, "f4")
    with pytest.raises(UnsupportedModelError, match=f"ssm.{name} has shape"):
        layers_of(FAMILY, arrays, {})
