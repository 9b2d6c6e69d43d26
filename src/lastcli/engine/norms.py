"""System norms in closed form or to a tolerance: frequency response, H2, H-infinity, Gramians, Hankel singular values.

All are those of the real system that the layer is: conjugates, both scan directions, the delay and D included. Every
function works on each group of a layer by itself and gives one value a group.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lastcli.engine.peaks import largest_singular_values, peak_gain, pole_grid
from lastcli.engine.system import DiagonalSystem, feedthrough_of

__all__ = [
    "active_states",
    "frequency_response",
    "frobenius_norms",
    "gramians",
    "h2_norm",
    "h_infinity_norm",
    "hankel_singular_values",
    "joint_gramian",
    "symmetric_root",
]

# Up to this size of its smaller side, a response matrix is decomposed as it is; beyond it, iterated on.
_EXACT_SIZE = 8
_CANDIDATES = 5
# Looks at a bracket of a reduced response, times of doing so around the highest, and how often the subspaces grow.
_LOOKS, _ZOOMS, _GROWTHS = 17, 5, 8
# A maximum this near to what is reached, relatively, is reached.
_REACHED = 1e-9


def frequency_response(system: DiagonalSystem, omega: np.ndarray) -> np.ndarray:
    """G(e^iω) = D + Σ_k h[k] e^(-iωk) over the two-sided real impulse response h.

    Args:
        system: the layer, |λ| < 1 wherever B and C are not zero.
        omega: (K,) radians a step.

    Returns:
        (G, K, p, m) complex.
    """
    omega = np.asarray(omega, np.float64)
    return np.stack([_Modal.of(system, g).response(omega) for g in range(system.groups)])


def frobenius_norms(system: DiagonalSystem, omega: np.ndarray) -> np.ndarray:
    """‖G(e^iω)‖ (Frobenius), with no response computed: a quadratic form in the T factors 1/(1 - λ e^(∓iω)).

    Args:
        system: the layer, |λ| < 1 wherever B and C are not zero.
        omega: (K,) radians a step.

    Returns:
        (G, K), never below the norm: what rounding may have taken off is added.
    """
    omega = np.asarray(omega, np.float64)
    return np.stack([_Modal.of(system, g).frobenius(omega) for g in range(system.groups)])


def h2_norm(system: DiagonalSystem) -> np.ndarray:
    """H2 norm of every group: the root of the energy of the impulse response, D at lag 0 included.

    The energy of s·Re(C λ^k B) over k ≥ 0 is s²/2·Σ_ij [(CᴴC)_ji (b_i·b_j*)/(1-λ_i λ_j*) + Re (CᵀC)_ij
    (b_i·b_j)/(1-λ_i λ_j)]. Two directions overlap at lag 0 only, and there only without delay.

    Returns:
        (G,); infinite where |λ| ≥ 1 and the state is both driven and read. Where large terms cancel, a value that
        cannot be told from rounding is given as the size of the rounding.
    """
    active = active_states(system)
    unstable = (active & (np.abs(system.poles) >= 1)).any(axis=1)
    poles = np.where(active & (np.abs(system.poles) < 1), system.poles, 0)
    B, half = np.where(active[..., None], system.B, 0), system.pairing**2 / 2
    hermitian = B @ B.conj().swapaxes(1, 2) / (1 - poles[:, :, None] * poles[:, None, :].conj())
    symmetric = B @ B.swapaxes(1, 2) / (1 - poles[:, :, None] * poles[:, None, :])
    energy, rounding = np.zeros(system.groups), np.zeros(system.groups)
    at_zero = feedthrough_of(system)
    for d in range(system.directions):
        C = np.where(active[:, None], system.C[:, d], 0)
        outer = C.conj().swapaxes(1, 2) @ C
        own = np.einsum("gij,gji->g", outer, hermitian).real
        rounding += half * np.finfo(float).eps * np.einsum("gij,gji->g", np.abs(outer), np.abs(hermitian))
        energy += half * (own + np.einsum("gij,gij->g", C.swapaxes(1, 2) @ C, symmetric).real)
        if not system.delay:
            first = system.pairing * (C @ B).real
            at_zero = at_zero + first
            energy -= (first**2).sum(axis=(1, 2))  # counted once, in the sum at lag 0
    energy = np.maximum(energy, rounding) + (at_zero**2).sum(axis=(1, 2))
    return np.where(unstable, np.inf, np.sqrt(energy))


def h_infinity_norm(system: DiagonalSystem) -> np.ndarray:
    """H-infinity norm of every group: the largest singular value of the response over all frequencies.

    Evaluated at every pole's angle, around it and on an even grid; the highest maxima are then refined. What is
    returned was reached at some frequency, so it never exceeds the norm.

    Returns:
        (G,); infinite where |λ| ≥ 1 and the state is both driven and read.
    """
    unstable = (active_states(system) & (np.abs(system.poles) >= 1)).any(axis=1)
    norms: np.ndarray = np.full(system.groups, np.inf)
    stable = np.flatnonzero(~unstable)
    if min(system.outputs, system.inputs) == 1:
        norms[stable] = _peaks_of_vectors(system, stable)
        return norms
    for g in stable:
        modal = _Modal.of(system, int(g))
        if not modal.poles.size:  # a constant gain
            norms[g] = np.linalg.norm(modal.D, 2)
            continue
        small = min(system.outputs, system.inputs) <= _EXACT_SIZE
        norms[g] = modal.peak_exact() if small else modal.peak_iterated()
    return norms


def gramians(system: DiagonalSystem) -> tuple[np.ndarray, np.ndarray]:
    """Controllability and observability Gramians in the real coordinates [Re x; Im x].

    They are those of x[k+1] = A x[k] + B u[k], y[k] = C x[k] with the layer's own λ, B, C: with `delay` = 0 that is
    the layer's strictly causal part delayed by one step, which changes no norm. Two read-out directions count as
    stacked outputs. States must be stable.

    Returns:
        two arrays (G, 2P, 2P), P = N·modes.
    """
    poles, controllability = system.poles, joint_gramian(system, system)
    stacked = system.C.reshape(system.groups, -1, poles.shape[1])
    outer = stacked.conj().swapaxes(1, 2) @ stacked / (1 - poles[:, :, None].conj() * poles[:, None, :])
    inner = stacked.swapaxes(1, 2) @ stacked / (1 - poles[:, :, None] * poles[:, None, :])
    plus, minus = inner + outer, inner - outer
    observability = np.block([[plus.real, -plus.imag], [-minus.imag, -minus.real]])
    return controllability, system.pairing**2 / 2 * observability


def joint_gramian(one: DiagonalSystem, other: DiagonalSystem) -> np.ndarray:
    """E[f f'ᵀ] for f = [Re x; Im x] of the forward scans of two layers under one white noise, (G, 2P, 2P')."""
    outer = one.poles[:, :, None] * other.poles[:, None, :].conj()
    hermitian = one.B @ other.B.conj().swapaxes(1, 2) / (1 - outer)
    symmetric = one.B @ other.B.swapaxes(1, 2) / (1 - one.poles[:, :, None] * other.poles[:, None, :])
    plus, minus = (symmetric + hermitian) / 2, (symmetric - hermitian) / 2
    return np.block([[plus.real, minus.imag], [plus.imag, -minus.real]])


def hankel_singular_values(system: DiagonalSystem) -> np.ndarray:
    """Hankel singular values of the system of `gramians`, descending: (G, 2P)."""
    controllability, observability = gramians(system)
    return np.linalg.svd(
        symmetric_root(observability).swapaxes(1, 2) @ symmetric_root(controllability), compute_uv=False
    )


def symmetric_root(gram: np.ndarray) -> np.ndarray:
    """L with gram = L Lᵀ for (..., n, n) positive semidefinite, scaled to a unit diagonal first."""
    scale = np.sqrt(np.maximum(np.diagonal(gram, axis1=-2, axis2=-1), 0))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(gram / (scale[..., :, None] * scale[..., None, :]))
    return scale[..., None] * vectors * np.sqrt(np.maximum(values, 0))[..., None, :]


def active_states(system: DiagonalSystem) -> np.ndarray:
    """(G, N·modes) bool: states that are both driven and read; the others are not part of the response."""
    return (np.abs(system.B).max(axis=2, initial=0) > 0) & (np.abs(system.C).max(axis=(1, 2), initial=0) > 0)


@dataclass(frozen=True)
class _Modal:
    """One group as D + Σ_j c_j b_j q_j^delay / (1 - λ_j q_j), q_j = e^(∓iω), conjugates and directions written out."""

    poles: np.ndarray  # (T,)
    B: np.ndarray  # (T, m)
    C: np.ndarray  # (p, T)
    D: np.ndarray  # (p, m)
    ahead: np.ndarray  # (T,) 1 for the forward scan, -1 for the backward
    delay: int

    @classmethod
    def of(cls, system: DiagonalSystem, group: int) -> _Modal:
        keep = active_states(system)[group]
        poles, B = system.poles[group, keep], system.B[group, keep]
        C = [system.pairing / 2 * system.C[group, d][:, keep] for d in range(system.directions)]
        return cls(
            poles=np.concatenate([poles, poles.conj()] * len(C)),
            B=np.concatenate([B, B.conj()] * len(C)),
            C=np.concatenate([part for c in C for part in (c, c.conj())], axis=1),
            D=feedthrough_of(system)[group],
            ahead=np.repeat([1.0, -1.0][: len(C)], 2 * len(poles)),
            delay=system.delay,
        )

    def factors(self, omega: np.ndarray) -> np.ndarray:
        q = np.exp(-1j * omega[:, None] * self.ahead)
        return q**self.delay / (1 - self.poles * q)

    def response(self, omega: np.ndarray) -> np.ndarray:
        return (self.C * self.factors(omega)[:, None]) @ self.B + self.D

    def frobenius(self, omega: np.ndarray) -> np.ndarray:
        factors = self.factors(omega)
        # Σ_ij f_i* f_j (c_i·c_j)(b_i·b_j) + 2 Re Σ_j f_j (c_jᵀ D b_j) + ‖D‖²
        own = (self.C.conj().T @ self.C) * (self.B.conj() @ self.B.T)
        crossed = np.einsum("tm,tm->t", self.C.T @ self.D, self.B)
        squares = (factors.conj() * (factors @ own.T)).real.sum(axis=1)
        squares += 2 * (factors @ crossed).real + (self.D**2).sum()
        size = np.abs(factors)
        terms = (size * (size @ np.abs(own).T)).sum(axis=1) + 2 * size @ np.abs(crossed) + (self.D**2).sum()
        rounding = (len(self.poles) + self.B.shape[1] + self.C.shape[0] + 16) * np.finfo(float).eps
        return np.sqrt(np.maximum(squares, 0) + 4 * rounding * terms)

    def grid(self, offsets: tuple[float, ...]) -> np.ndarray:
        # both directions have the same poles
        return pole_grid(np.unique(self.poles[self.poles.imag >= 0]), offsets=offsets, real=True)

    def peak_exact(self) -> float:
        def gain(omega: np.ndarray) -> np.ndarray:
            return np.linalg.svd(self.response(omega), compute_uv=False)[:, 0]

        return float(peak_gain(gain, self.grid((-1.0, 0.0, 1.0)), _CANDIDATES))

    def peak_iterated(self) -> float:
        """As `peak_exact`, by power iteration in factored form: rank the grid roughly, then climb from the best."""
        if not self.D.any():
            self = self.narrow()
        grid = self.grid((0.0,) if len(self.poles) > 256 else (-1.0, 0.0, 1.0))
        rng, single = np.random.default_rng(0), self.single
        rough, _ = single.iterate(grid, rng.normal(size=(len(grid), self.B.shape[1], 1)), 5)
        chosen = np.argsort(-rough)[: 8 * _CANDIDATES]
        better, blocks = single.iterate(grid[chosen], rng.normal(size=(len(chosen), self.B.shape[1], 4)), 12)
        return max(
            self.climbed(grid[max(middle - 1, 0)], grid[middle], grid[min(middle + 1, len(grid) - 1)], block)
            for middle, block in ((chosen[k], blocks[k]) for k in np.argsort(-better)[:_CANDIDATES])
        )

    def climbed(self, low: float, omega: float, high: float, block: np.ndarray) -> float:
        """The highest gain in a bracket, from below, by greedy subspaces.

        What the singular vectors found so far span is a response of a few inputs and outputs. Its gain is never above
        that of the whole one, and touches it where they were found; so its maximum, which costs little, is where to
        look next (Aliyev, Benner, Mengi, Schwerdtner and Voigt, SIAM J. Matrix Anal. Appl. 38, 2017).

        Args:
            low, high: the ends, radians.
            omega: where to begin.
            block: (m, b) what the iteration there begins with.
        """
        rights: list[np.ndarray] = []
        lefts: list[np.ndarray] = []
        top = 0.0
        for _ in range(_GROWTHS):
            _, found = self.single.iterate(np.array([omega]), block[None], 4)
            # where the singular vectors point, single precision tells; what is reached in that direction is exact
            block = np.linalg.qr(found[0].astype(complex))[0]
            image = self.C @ (self.factors(np.array([omega])).T * (self.B @ block)) + self.D @ block
            top = max(top, float(np.linalg.norm(image, 2)))
            rights.append(block)
            lefts.append(image)
            omega, reduced = self.reduced_peak(_basis(lefts), _basis(rights), low, high)
            if reduced <= top * (1 + _REACHED):
                break
            top = reduced
        return top

    def reduced_peak(self, left: np.ndarray, right: np.ndarray, low: float, high: float) -> tuple[float, float]:
        """Where leftᴴ G right is largest between two frequencies, and how large it is there."""
        read, driven, direct = left.conj().T @ self.C, self.B @ right, left.conj().T @ self.D @ right
        best, top = low, 0.0
        for _ in range(_ZOOMS):
            omega = np.linspace(low, high, _LOOKS)
            responses = (read * self.factors(omega)[:, None]) @ driven + direct
            values = np.linalg.svd(responses, compute_uv=False)[:, 0]
            highest = int(values.argmax())
            if values[highest] > top:
                best, top = float(omega[highest]), float(values[highest])
            low, high = float(omega[max(highest - 1, 0)]), float(omega[min(highest + 1, _LOOKS - 1)])
        return best, top

    def narrow(self) -> _Modal:
        """Of a system without D, one with the same singular values and no more inputs or outputs than poles."""
        forward = self.B[self.ahead > 0]  # the backward scan has the same inputs
        basis = np.linalg.qr(forward.conj().T)[0]  # (m, k)
        B, C = self.B @ basis, np.asarray(np.linalg.qr(self.C, mode="r"))
        return dataclasses.replace(self, B=B, C=C, D=np.zeros((len(C), B.shape[1])))

    @cached_property
    def single(self) -> _Modal:
        """In single precision, to find directions in: half the time. Scaled, since its numbers do not reach far."""
        B, C, D = (float(np.abs(matrix).max(initial=0)) for matrix in (self.B, self.C, self.D))
        scale = max(B * C, D) or 1.0
        return dataclasses.replace(
            self,
            B=(self.B / (B or 1.0)).astype(np.complex64),
            C=(self.C * ((B or 1.0) / scale)).astype(np.complex64),
            D=(self.D / scale).astype(np.complex64),
        )

    @cached_property
    def _direct(self) -> np.ndarray:
        return self.D.astype(self.B.dtype)  # a real matrix would be made complex for every product

    @cached_property
    def _adjoints(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        B, C, D = (matrix.conj().T.copy() for matrix in (self.B, self.C, self._direct))
        return B, C, D

    def iterate(self, omega: np.ndarray, start: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
        """Largest singular values at each frequency, by power iteration from `start` (K, m, b)."""
        factors = self.factors(omega).T[..., None].astype(self.B.dtype)
        start = start.astype(self.B.dtype)
        conjugates, direct = factors.conj(), bool(self.D.any())
        D, (B_adjoint, C_adjoint, D_adjoint) = self._direct, self._adjoints
        alone = np.count_nonzero(D) == np.count_nonzero(np.diagonal(D)) and D.shape[0] == D.shape[1]

        def through(matrix: np.ndarray, v: np.ndarray) -> np.ndarray:
            return np.diagonal(matrix)[:, None, None] * v if alone else _times(matrix, v)

        def apply(block: np.ndarray) -> np.ndarray:
            v = block.swapaxes(0, 1)
            image = _times(self.C, factors * _times(self.B, v))
            return (image + through(D, v) if direct else image).swapaxes(0, 1)

        def adjoint(image: np.ndarray) -> np.ndarray:
            v = image.swapaxes(0, 1)
            block = _times(B_adjoint, conjugates * _times(C_adjoint, v))
            return (block + through(D_adjoint, v) if direct else block).swapaxes(0, 1)

        return largest_singular_values(apply, adjoint, start, iterations)


def _basis(columns: list[np.ndarray]) -> np.ndarray:
    """Orthonormal columns that span those of all matrices."""
    return np.linalg.qr(np.concatenate(columns, axis=1))[0]


def _times(matrix: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """(a, c) times (c, k, b) as one product."""
    return (matrix @ blocks.reshape(len(blocks), -1)).reshape(len(matrix), *blocks.shape[1:])


def _peaks_of_vectors(system: DiagonalSystem, groups: np.ndarray) -> np.ndarray:
    """H-infinity norms of groups with one input or one output: the norm of a vector, all groups at once."""
    if not len(groups):
        return np.zeros(0)
    active = active_states(system)[groups]
    poles = np.where(active, system.poles[groups], 0)
    weight = system.pairing / 2 * np.einsum("grpn,gnm->grnpm", system.C[groups], system.B[groups])
    weight = np.where(active[:, None, :, None, None], weight, 0).reshape(*weight.shape[:3], -1)
    weight = np.concatenate([weight, weight.conj()], axis=2)
    both = np.concatenate([poles, poles.conj()], axis=1)
    direct = 0 if system.D is None else system.D[groups].reshape(len(groups), 1, -1)

    def gain(omega: np.ndarray) -> np.ndarray:
        response = np.zeros((*omega.shape, weight.shape[-1]), complex) + direct
        for d in range(system.directions):
            q = np.exp((-1j if d == 0 else 1j) * omega)[..., None]
            response += (q**system.delay / (1 - q * both[:, None])) @ weight[:, d]
        return np.sqrt((np.abs(response) ** 2).sum(axis=-1))

    return peak_gain(gain, pole_grid(poles, real=True))
