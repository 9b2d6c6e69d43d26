"""The frequency response of one group of a layer, and products with it, from real matrices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lastcli.engine.peaks import pole_grid
from lastcli.engine.system import DiagonalSystem, active_states, feedthrough_of

__all__ = ["Modal", "Turns"]

# Up to so many products a frequency, a response is computed in complex numbers, which takes fewer calls.
_SMALL = 2**13


class Turns(NamedTuple):
    """What the poles do at (K,) frequencies: (N, K) complex s = f(λ) + f(λ*) and e = i·(f(λ) - f(λ*))."""

    s: np.ndarray
    e: np.ndarray

    def conj(self) -> Turns:
        """Those of the adjoint; also those of the backward scan."""
        return Turns(self.s.conj(), self.e.conj())

    def astype(self, dtype: np.dtype) -> Turns:
        """In another complex precision."""
        return Turns(self.s.astype(dtype), self.e.astype(dtype))


@dataclass(frozen=True)
class Modal:
    """One group, active states only, as G(e^iω) = D + Σ_d read_d M_d(ω) drive with real read, drive and D.

    A pole and its conjugate answer to an input u with f(λ) b·u and f(λ*) b*·u, f(λ) = q^delay / (1 - λ q), q = e^(-iω).
    In the coordinates (Re b·u, Im b·u), which both share, that is the symmetric matrix M = [[s, e], [e, -s]] of
    `Turns`, and (Re c, Im c) reads it: a product with G takes half the multiplications that b, b*, c and c* take. The
    backward scan has q* for q, so its M is the conjugate, and the same B.

    Attributes:
        poles: (N,) complex.
        drive: (2N, m) Re B, then Im B.
        read: (p, R·2N) Re C, then Im C, for each direction; half the pairing is in it.
        D: (p, m).
        delay: as that of the system.
    """

    poles: np.ndarray
    drive: np.ndarray
    read: np.ndarray
    D: np.ndarray
    delay: int

    @classmethod
    def of(cls, system: DiagonalSystem, group: int) -> Modal:
        """One group of a layer."""
        active = active_states(system, slice(group, group + 1))[0]
        B, C = system.B[group, active], system.pairing / 2 * system.C[group][..., active]
        return cls(
            poles=system.poles[group, active],
            drive=np.concatenate([B.real, B.imag]),
            read=np.concatenate([part for c in C for part in (c.real, c.imag)], axis=1),
            D=feedthrough_of(system)[group],
            delay=system.delay,
        )

    def turns(self, omega: np.ndarray) -> Turns:
        """What the poles do at (K,) frequencies, in radians a step."""
        q = np.exp(-1j * omega)
        one, other = (q**self.delay / (1 - poles[:, None] * q) for poles in (self.poles, self.poles.conj()))
        return Turns(one + other, 1j * (one - other))

    def response(self, omega: np.ndarray) -> np.ndarray:
        """(K, p, m) complex at (K,) frequencies."""
        if self.read.size * self.drive.shape[1] <= _SMALL:
            B, C = self._written_out
            return (C * self._factors(omega)[:, None]) @ B + self.D
        turned = self._gathered(self.turns(omega), self.read.T[:, None])
        return _times(self.drive.T, turned).transpose(1, 2, 0) + self.D

    def between(self, left: np.ndarray, right: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """leftᴴ G right of complex (p, a) and (m, b): a function of (K,) frequencies that gives (K, a, b)."""
        read = _times(self.read.T, left.conj()[:, None])
        driven = _times(self.drive, right[:, None])[:, 0].T.copy()
        direct = _times(self.D.T, left.conj()[:, None])[:, 0].T @ right

        def response(omega: np.ndarray) -> np.ndarray:
            turned = self._gathered(self.turns(omega), read)
            product = driven @ turned.reshape(len(turned), -1)
            return product.reshape(len(driven), *turned.shape[1:]).transpose(1, 2, 0) + direct

        return response

    def apply(self, turns: Turns, block: np.ndarray) -> np.ndarray:
        """G at K frequencies times a block for each: (m, K, b) → (p, K, b)."""
        return _times(self.read, self._spread(turns, _times(self.drive, block))) + self._through(block)

    def adjoint(self, turns: Turns, block: np.ndarray) -> np.ndarray:
        """Gᴴ at K frequencies times a block for each: (p, K, b) → (m, K, b); `turns` are those of the adjoint."""
        turned = self._gathered(turns, _times(self.read.T, block))
        return _times(self.drive.T, turned) + self._through(block, adjoint=True)

    def frobenius(self, omega: np.ndarray) -> np.ndarray:
        """(K,) ‖G‖ (Frobenius) at (K,) frequencies, with no response computed: a quadratic form in the factors.

        Never below the norm: what rounding may have taken off is added.
        """
        (B, C), factors = self._written_out, self._factors(omega)
        # Σ_ij f_i* f_j (c_i·c_j)(b_i·b_j) + 2 Re Σ_j f_j (c_jᵀ D b_j) + ‖D‖²
        own = (C.conj().T @ C) * (B.conj() @ B.T)
        crossed = np.einsum("tm,tm->t", C.T @ self.D, B)
        squares = (factors.conj() * (factors @ own.T)).real.sum(axis=1)
        squares += 2 * (factors @ crossed).real + (self.D**2).sum()
        size = np.abs(factors)
        terms = (size * (size @ np.abs(own).T)).sum(axis=1) + 2 * size @ np.abs(crossed) + (self.D**2).sum()
        rounding = (len(B) + sum(self.D.shape) + 16) * np.finfo(float).eps
        return np.sqrt(np.maximum(squares, 0) + 4 * rounding * terms)

    def grid(self, offsets: tuple[float, ...]) -> np.ndarray:
        """Frequencies that resolve every resonance (`peaks.pole_grid`)."""
        upper = np.where(self.poles.imag < 0, self.poles.conj(), self.poles)
        return pole_grid(np.unique(upper), offsets=offsets, real=True)

    def narrow(self) -> Modal:
        """With the same singular values and, where there is no D, no more inputs or outputs than coordinates."""
        if self.D.any():
            return self
        drive, read = self.drive, self.read
        if drive.shape[1] > len(drive):
            drive = np.asarray(np.linalg.qr(drive.T, mode="r")).T
        if len(read) > read.shape[1]:
            read = np.asarray(np.linalg.qr(read, mode="r"))
        return dataclasses.replace(self, drive=drive, read=read, D=np.zeros((len(read), drive.shape[1])))

    def single(self) -> Modal:
        """In single precision, to find directions in: half the time. Scaled, since its numbers do not reach far."""
        drive, read, D = (float(np.abs(matrix).max(initial=0)) for matrix in (self.drive, self.read, self.D))
        scale = max(drive * read, D) or 1.0
        return dataclasses.replace(
            self,
            drive=(self.drive / (drive or 1.0)).astype(np.float32),
            read=(self.read * ((drive or 1.0) / scale)).astype(np.float32),
            D=(self.D / scale).astype(np.float32),
        )

    @cached_property
    def _directions(self) -> int:
        return self.read.shape[1] // max(len(self.drive), 1) or 1

    @cached_property
    def _written_out(self) -> tuple[np.ndarray, np.ndarray]:
        """(2RN, m) B and (p, 2RN) C with conjugates and directions side by side: G = C diag(factors) B + D."""
        count = len(self.poles)
        b = self.drive[:count] + 1j * self.drive[count:]
        parts = self.read.reshape(len(self.D), self._directions, 2, count)
        c = [parts[:, d, 0] + 1j * parts[:, d, 1] for d in range(self._directions)]
        B = np.concatenate([b, b.conj()] * self._directions)
        return B, np.concatenate([part for one in c for part in (one, one.conj())], axis=1)

    def _factors(self, omega: np.ndarray) -> np.ndarray:
        """(K, 2RN) f(λ) and f(λ*) of every direction at (K,) frequencies."""
        pairs = np.concatenate([self.poles, self.poles.conj()])
        q = np.exp(-1j * omega[:, None])
        if self._directions == 2:
            q, pairs = np.repeat(np.concatenate([q, q.conj()], axis=1), len(pairs), axis=1), np.tile(pairs, 2)
        return np.asarray(q**self.delay / (1 - pairs * q))

    def _spread(self, turns: Turns, block: np.ndarray) -> np.ndarray:
        """M of every direction times (2N, K, b): (R·2N, K, b)."""
        forward = _turned(turns, block)
        return forward if self._directions == 1 else np.concatenate([forward, _turned(turns.conj(), block)])

    def _gathered(self, turns: Turns, block: np.ndarray) -> np.ndarray:
        """The sum over the directions of M, which is symmetric, times (R·2N, K or 1, b): (2N, K, b)."""
        width = 2 * len(self.poles)
        total = _turned(turns, block[:width])
        if self._directions == 2:
            total += _turned(turns.conj(), block[width:])
        return total

    @cached_property
    def _direct(self) -> np.ndarray | None:
        """D, of a diagonal one the diagonal, None for zero."""
        if not self.D.any():
            return None
        diagonal = np.diagonal(self.D)
        alone = self.D.shape[0] == self.D.shape[1] and np.count_nonzero(self.D) == np.count_nonzero(diagonal)
        return diagonal[:, None, None] if alone else self.D

    def _through(self, block: np.ndarray, adjoint: bool = False) -> np.ndarray | float:
        direct = self._direct
        if direct is None:
            return 0.0
        return direct * block if direct.ndim == 3 else _times(direct.T if adjoint else direct, block)


def _turned(turns: Turns, block: np.ndarray) -> np.ndarray:
    """M times (2N, K or 1, b)."""
    s, e, count = turns.s[..., None], turns.e[..., None], len(turns.s)
    upper, lower = block[:count], block[count:]
    out = np.empty((2 * count, s.shape[1], block.shape[2]), s.dtype)
    np.multiply(s, upper, out=out[:count])
    out[:count] += e * lower
    np.multiply(e, upper, out=out[count:])
    out[count:] -= s * lower
    return out


def _times(matrix: np.ndarray, block: np.ndarray) -> np.ndarray:
    """(a, c) real times (c, K, b) complex of the same precision as one real product."""
    flat = np.ascontiguousarray(block).reshape(len(block), int(np.prod(block.shape[1:])))
    return (matrix @ flat.view(matrix.dtype)).view(flat.dtype).reshape(len(matrix), *block.shape[1:])
