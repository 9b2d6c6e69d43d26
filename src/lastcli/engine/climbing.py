"""The highest gain of a response with many inputs and outputs, reached from below.

A grid is ranked roughly by power iteration, with no response computed. From the best points the peak is climbed by
greedy subspaces: what the singular vectors found so far span is a response of a few inputs and outputs. Its gain is
never above that of the whole one, and touches it where they were found; so its maximum, which costs little, is where to
look next (Aliyev, Benner, Mengi, Schwerdtner and Voigt, SIAM J. Matrix Anal. Appl. 38, 2017).
"""

from __future__ import annotations

import numpy as np

from lastcli.engine.modal import Modal

__all__ = ["climbed_peak", "reduced_peak"]

_CANDIDATES = 5
# Looks at a bracket of a reduced response, times of doing so around the highest, and how often the subspaces grow.
_LOOKS, _ZOOMS, _GROWTHS = 17, 5, 8
# A maximum this near to what is reached, relatively, is reached.
_REACHED = 1e-9


def climbed_peak(modal: Modal) -> float:
    """A gain that is reached at some frequency, the highest that was found.

    Args:
        modal: one group with at least one state.
    """
    modal = modal.narrow()
    grid = modal.grid((0.0,) if modal.read.shape[1] > 256 else (-1.0, 0.0, 1.0))
    rng, single, inputs = np.random.default_rng(0), modal.single(), modal.D.shape[1]
    rough, _ = _iterated(single, grid, rng.normal(size=(inputs, len(grid), 1)), 5)
    chosen = np.argsort(-rough)[: 8 * _CANDIDATES]
    better, blocks = _iterated(single, grid[chosen], rng.normal(size=(inputs, len(chosen), 4)), 12)
    return max(
        _climbed(modal, single, grid[[max(middle - 1, 0), middle, min(middle + 1, len(grid) - 1)]], block)
        for middle, block in ((chosen[k], blocks[:, k]) for k in np.argsort(-better)[:_CANDIDATES])
    )


def _climbed(modal: Modal, single: Modal, around: np.ndarray, block: np.ndarray) -> float:
    """The highest gain in a bracket, from below, by greedy subspaces.

    Args:
        modal: the group.
        single: the same in single precision.
        around: the low end, where to begin, and the high end; radians a step.
        block: (m, b) what the iteration there begins with.
    """
    low, omega, high = map(float, around)
    rights: list[np.ndarray] = []
    lefts: list[np.ndarray] = []
    top = 0.0
    for _ in range(_GROWTHS):
        at = np.array([omega])
        _, found = _iterated(single, at, block[:, None], 4)
        # where the singular vectors point, single precision tells; what is reached in that direction is exact
        block = np.linalg.qr(found[:, 0].astype(complex))[0]
        image = modal.apply(modal.turns(at), block[:, None])[:, 0]
        top = max(top, float(np.linalg.norm(image, 2)))
        rights.append(block)
        lefts.append(image)
        omega, reduced = reduced_peak(modal, _basis(lefts), _basis(rights), low, high)
        if reduced <= top * (1 + _REACHED):
            break
        top = reduced
    return top


def reduced_peak(modal: Modal, left: np.ndarray, right: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Where leftᴴ G right is largest between two frequencies, and how large it is there."""
    best, top, response = low, 0.0, modal.between(left, right)
    for _ in range(_ZOOMS):
        omega = np.linspace(low, high, _LOOKS)
        values = np.linalg.svd(response(omega), compute_uv=False)[:, 0]
        highest = int(values.argmax())
        if values[highest] > top:
            best, top = float(omega[highest]), float(values[highest])
        low, high = float(omega[max(highest - 1, 0)]), float(omega[min(highest + 1, _LOOKS - 1)])
    return best, top


def _iterated(modal: Modal, omega: np.ndarray, start: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Largest singular values at (K,) frequencies by block power iteration; every one raises them, from below.

    Args:
        modal: the group.
        omega: (K,) radians a step.
        start: (m, K, b) blocks to begin with.
        iterations: how many.

    Returns:
        (K,) values, and the (m, K, b) orthonormal blocks they were reached with, to begin with next time.
    """
    dtype = np.result_type(modal.drive.dtype, np.complex64)
    turns = modal.turns(omega).astype(dtype)
    back = turns.conj()
    block = _orthonormal(start.astype(dtype))
    image = modal.apply(turns, block)
    for _ in range(iterations):
        block = _orthonormal(modal.adjoint(back, image))
        image = modal.apply(turns, block)
    # The singular values of the thin images, from their small Gram matrices.
    gram = np.einsum("pki,pkj->kij", image.conj(), image)
    return np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[:, -1], 0)), block


def _orthonormal(block: np.ndarray) -> np.ndarray:
    """(m, K, b) with the b columns of every k made orthonormal."""
    if block.shape[2] == 1:
        norm = np.linalg.norm(block, axis=0)
        return block / np.where(norm > 0, norm, 1)
    return np.linalg.qr(block.swapaxes(0, 1))[0].swapaxes(0, 1)


def _basis(columns: list[np.ndarray]) -> np.ndarray:
    """Orthonormal columns that span those of all matrices."""
    return np.asarray(np.linalg.qr(np.concatenate(columns, axis=1))[0])
