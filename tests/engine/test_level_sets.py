"""The proof of the H-infinity norm against fine grids, a bisection by python-control and a hidden peak."""

from __future__ import annotations

from types import SimpleNamespace

import control
import numpy as np
import pytest

from lastcli.engine import level_sets
from lastcli.engine.level_sets import certified_h_infinity
from lastcli.engine.norms import frequency_response, h_infinity_norm
from lastcli.engine.system import DiagonalSystem
from tests import oracles
from tests.systems import KINDS, random_system, system_of

FORWARD = [kind for kind in KINDS if "bidirectional" not in kind]


def fine_peak(system: DiagonalSystem, points: int = 2**16) -> float:
    """The top of a very fine grid, made finer still around its highest point, over all groups."""
    best = 0.0
    for g in range(system.groups):
        omega = np.linspace(0, np.pi, points)
        for _ in range(3):
            gains = np.linalg.norm(plain_response(system, g, omega), 2, axis=(1, 2))
            k = int(gains.argmax())
            omega = np.linspace(omega[max(k - 1, 0)], omega[min(k + 1, len(omega) - 1)], 1001)
        best = max(best, float(gains.max()))
    return best


def plain_response(system: DiagonalSystem, g: int, omega: np.ndarray) -> np.ndarray:
    """s/2·Σ (c b + conjugate) by partial fractions, one state and direction after the other, (K, p, m)."""
    zero = np.zeros((system.outputs, system.inputs))
    response = np.tile(zero if system.D is None else system.D[g], (len(omega), 1, 1)).astype(complex)
    for d in range(system.directions):
        q = np.exp((-1j if d == 0 else 1j) * omega)
        for i, pole in enumerate(system.poles[g]):
            product = np.outer(system.C[g, d, :, i], system.B[g, i])
            for value, weight in ((pole, product), (pole.conjugate(), product.conj())):
                response += system.pairing / 2 * (q**system.delay / (1 - value * q))[:, None, None] * weight
    return response


@pytest.mark.parametrize("kind", KINDS)
def test_the_norm_is_proved_and_no_fine_grid_goes_above_it(kind):
    system = system_of(kind, seed=51)
    found = certified_h_infinity(system)
    peak = fine_peak(system)
    assert found.exact
    assert peak * (1 - 1e-9) <= found.value <= peak * (1 + 1e-6)


@pytest.mark.parametrize("kind", FORWARD)
def test_the_proved_norm_is_that_of_a_bisection(kind):
    system = system_of(kind, seed=52)
    expected = []
    for g in range(system.groups):
        A, B, C, D = oracles.dense(system, g)
        size = max(D.shape)  # the bisection wants as many inputs as outputs; idle ones change nothing
        B, C = np.pad(B, ((0, 0), (0, size - B.shape[1]))), np.pad(C, ((0, size - len(C)), (0, 0)))
        reference = control.ss(A, B, C, np.pad(D, [(0, size - n) for n in D.shape]), True)
        expected.append(control.system_norm(reference, "inf", tol=1e-9, method="scipy"))
    found = certified_h_infinity(system)
    assert found.exact
    assert found.value == pytest.approx(max(expected), rel=2e-6)


def clustered(seed: int) -> DiagonalSystem:
    """Poles within a fraction of their distance from the circle, whose read-outs cancel each other."""
    rng = np.random.default_rng(seed)
    states = int(rng.integers(2, 7))
    system = random_system(
        seed, states=states, inputs=int(rng.integers(1, 4)), outputs=int(rng.integers(1, 4)),
        directions=int(rng.integers(1, 3)), pairing=int(rng.integers(1, 3)), delay=int(rng.integers(2)),
        feedthrough=("none", "dense")[int(rng.integers(2))],
    )  # fmt: skip
    distance = 10 ** rng.uniform(-4, -1)
    spread = distance * 10 ** rng.uniform(-2, 0.5)
    angles = rng.uniform(0, np.pi) + spread * rng.normal(size=states)
    poles = (1 - distance * rng.uniform(0.5, 2, states)) * np.exp(1j * angles)
    C = system.C.copy()
    C[..., -1] = -C[..., :-1].sum(axis=-1)
    return system.replace(poles=poles[None], C=C)


@pytest.mark.parametrize("block", range(10))
def test_clusters_that_cancel_are_never_called_exact_below_a_fine_grid(block):
    proved = 0
    for seed in range(20 * block, 20 * block + 20):
        system = clustered(seed)
        found, peak = certified_h_infinity(system), fine_peak(system, 2**12)
        assert not found.exact or found.value >= peak * (1 - 1e-6)
        proved += found.exact
    assert proved >= 18


def hidden_peak() -> DiagonalSystem:
    """A layer with its peak between the points of any grid that its poles suggest, and six lower ones elsewhere.

    Twelve poles, 0.03 apart and 0.03 from the circle, are read so that they cancel at multiples of that distance and
    add up between two of them.
    """
    angles = 0.9 + 0.03 * (np.arange(12) - 6)
    near, decoys = 0.97 * np.exp(1j * angles), 0.97 * np.exp(1j * np.arange(1.5, 3.0, 0.25))
    seen = np.unique(np.round(np.concatenate([angles - 0.03, angles, angles + 0.03, np.linspace(0, np.pi, 65)]), 12))

    def columns(omega: np.ndarray) -> np.ndarray:
        q = np.exp(-1j * omega)[:, None]
        plus, minus = 1 / (1 - near * q), 1 / (1 - near.conj() * q)
        return np.concatenate([plus + minus, 1j * (plus - minus)], axis=1)

    rows = np.concatenate([columns(seen), 100 * columns(np.array([0.855]))])
    target = np.concatenate([np.zeros(len(seen)), [100.0], np.zeros(len(rows))])
    solution = np.linalg.lstsq(np.concatenate([rows.real, rows.imag]), target, rcond=1e-13)[0]
    B, C = np.zeros((1, 18, 2), complex), np.zeros((1, 1, 2, 18), complex)
    B[0, :12, 0], B[0, 12:, 1] = 1, 1
    C[0, 0, 0, :12], C[0, 0, 1, 12:] = solution[:12] + 1j * solution[12:], 0.74 * 0.03
    return DiagonalSystem(poles=np.concatenate([near, decoys])[None], B=B, C=C, pairing=2)


def test_a_peak_between_the_points_of_the_search_is_found():
    system = hidden_peak()
    peak = fine_peak(system)
    assert h_infinity_norm(system)[0] < 0.95 * peak  # what the search alone sees
    found = certified_h_infinity(system)
    assert found.exact
    assert found.value == pytest.approx(peak, rel=1e-6)


def test_a_climb_that_does_not_end_is_called_a_lower_bound(monkeypatch):
    monkeypatch.setattr(level_sets, "_ROUNDS", 1)
    found = certified_h_infinity(hidden_peak())
    assert not found.exact
    assert h_infinity_norm(hidden_peak())[0] < found.value <= fine_peak(hidden_peak()) * (1 + 1e-9)


def test_the_peak_of_one_channel_among_many_is_found():
    hidden = hidden_peak()
    quiet = random_system(3, states=18, inputs=2, outputs=2, groups=3, pairing=2, multi=True, feedthrough="none")
    quiet = quiet.replace(C=quiet.C * 0.9 / h_infinity_norm(quiet)[:, None, None, None])
    system = quiet.replace(
        poles=np.concatenate([quiet.poles, hidden.poles]),
        B=np.concatenate([quiet.B, hidden.B]),
        C=np.concatenate([quiet.C, hidden.C]),
        sets=4,
    )
    assert certified_h_infinity(system).value == pytest.approx(fine_peak(system), rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("directions", [1, 2])
def test_the_peak_of_a_wide_layer_is_that_of_the_search_to_the_last_digits(seed, directions, monkeypatch):
    system = random_system(seed, states=7, inputs=11, outputs=9, directions=directions, delay=0)
    expected = h_infinity_norm(system).max()
    assert expected == pytest.approx(fine_peak(system, 2**12), rel=1e-6)
    monkeypatch.setattr(level_sets, "h_infinity_norm", None)  # the proof alone finds it
    found = certified_h_infinity(system)
    assert found.exact
    assert found.value == pytest.approx(expected, rel=1e-9)


def test_a_wide_layer_that_is_not_proved_has_the_lower_bound_of_the_search(monkeypatch):
    system = random_system(2, states=7, inputs=11, outputs=9)
    monkeypatch.setattr(level_sets._Group, "crossings", lambda self, level: (np.zeros(0), False))
    monkeypatch.setattr(level_sets, "h_infinity_norm", lambda system: np.array([1e6]))
    assert certified_h_infinity(system) == level_sets.HInfinity(1e6, False)


def test_what_is_too_large_to_prove_is_called_a_lower_bound(monkeypatch):
    system = system_of("mimo")
    assert certified_h_infinity(system).exact
    monkeypatch.setattr(level_sets, "LARGEST", 19**3)
    found = certified_h_infinity(system)
    assert not found.exact
    assert found.value == h_infinity_norm(system).max()


def test_a_gain_that_is_only_rounding_is_not_called_exact():
    system = random_system(4, states=2, feedthrough="none")
    system = system.replace(
        poles=np.repeat(system.poles[:, :1], 2, axis=1) * np.array([1, 1 + 1e-16]),
        B=np.repeat(system.B[:, :1], 2, axis=1),
        C=np.stack([system.C[..., 0], -system.C[..., 0] * (1 + 1e-15)], axis=-1),
    )
    assert not certified_h_infinity(system).exact


@pytest.mark.parametrize("kind", ["mimo", "multi"])
def test_an_unstable_state_that_is_read_has_no_finite_norm(kind):
    system = system_of(kind)
    system.poles[-1, 2] = 1.001j
    assert certified_h_infinity(system) == level_sets.HInfinity(np.inf, True)
    idle = system.replace(B=np.where(np.abs(system.poles)[..., None] < 1, system.B, 0))
    found = certified_h_infinity(idle)
    assert found.exact
    assert found.value == pytest.approx(h_infinity_norm(idle).max(), rel=1e-6)


def test_a_constant_gain_needs_no_proof():
    system = system_of("mimo").replace(B=np.zeros((1, 5, 3), complex))
    assert certified_h_infinity(system) == level_sets.HInfinity(pytest.approx(np.linalg.norm(system.D[0], 2)), True)


@pytest.mark.parametrize("angle", [0.0, np.pi])
def test_poles_at_either_end_of_the_frequencies_do_no_harm(angle):
    system = random_system(6, states=4, inputs=2, outputs=2, directions=2)
    system.poles[0] = (1 - np.array([1e-7, 1e-5, 1e-3, 0.1])) * np.exp(1j * angle)
    found = certified_h_infinity(system)
    assert found.exact
    response = frequency_response(system, np.array([angle]))[0, 0]
    assert found.value >= np.linalg.norm(response, 2) * (1 - 1e-9)


def test_what_the_norm_of_one_matrix_says_is_not_said_of_the_others_beside_it(monkeypatch):
    """Of each pair the first is looked at where its Frobenius norm leaves room, whatever the second one's."""
    responses = np.stack([np.diag(d) for d in ([5.0, 5.0, 5.0], [4.0, 0.0, 0.0], [8.0, 0.0, 0.0], [3.0, 3.0, 0.0])])
    omega, looked = np.arange(4.0), []

    def responses_at(self, at):
        looked.extend(at)
        return [responses[at.astype(int)]]

    monkeypatch.setattr(level_sets, "_AT_ONCE", 2)
    modal = SimpleNamespace(frobenius=lambda at: np.linalg.norm(responses, axis=(1, 2)))
    monkeypatch.setattr(level_sets.Modal, "of", lambda system, group: modal)
    monkeypatch.setattr(level_sets._Group, "_responses", responses_at)
    found = level_sets._Group(*[None] * 7).highest(omega)
    assert found.gain == pytest.approx(8.0)
    assert found.around.tolist() == [1, 2, 3]
    assert sorted(looked) == [0, 2]
