"""Bidirectional layers whose backward kernel starts one step ahead (S4, DSS), as a `DiagonalSystem`.

The published convolution puts the reversed kernel at lags -1, -2, ...: y[k] gets Σ_{j≥1} C⁻ λ^(j-1) B u[k+j],
without a term at lag 0. A `DiagonalSystem` starts both directions at lag 0. So a stored state gets two modes, λ and a
pole at zero: (C⁻/λ) λ^j B for j ≥ 0 minus (C⁻/λ) B at j = 0 is the published kernel exactly, and a truncation stays
exact. What a refit makes of the two modes is C⁻ again, plus a direct term that D holds.
"""

from __future__ import annotations

import numpy as np

from lastcli.errors import UnsupportedModelError

__all__ = ["merge_modes", "split_modes"]

# Below this a division by λ loses more than float32 has.
_SMALLEST_POLE = 1e-4


def split_modes(
    poles: np.ndarray, B: np.ndarray, C: np.ndarray, layer: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poles (G, 2N), B (G, 2N) and C (G, 2, p, 2N) with two modes a state, adjacent.

    Args:
        poles: (G, N) discrete poles.
        B: (G, N) discrete input map.
        C: (G, 2, p, N), the forward and the backward read-out as stored.
        layer: for the error message.

    Raises:
        UnsupportedModelError: a pole is too close to zero to start the backward kernel one step earlier.
    """
    if np.abs(poles).min(initial=1.0) < _SMALLEST_POLE:
        group, state = np.unravel_index(int(np.abs(poles).argmin()), poles.shape)
        raise UnsupportedModelError(
            f"{layer}: state {state} of channel {group} has a pole at {abs(poles[group, state]):.1e}; the backward "
            "kernel of a bidirectional layer cannot be advanced by a step there."
        )
    zeros = np.zeros_like(poles)
    ahead = C[:, 1] / poles[:, None, :]
    modes = np.stack([np.stack([C[:, 0], np.zeros_like(C[:, 0])], axis=-1), np.stack([ahead, -ahead], axis=-1)], axis=1)
    return (
        np.stack([poles, zeros], axis=-1).reshape(len(poles), -1),
        np.stack([B, B], axis=-1).reshape(len(B), -1),
        modes.reshape(*modes.shape[:3], -1),
    )


def merge_modes(
    poles: np.ndarray, B: np.ndarray, C: np.ndarray, pairing: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The inverse of `split_modes`, with what only D can hold. The second mode of every state is its pole at zero.

    Returns:
        poles (G, K), B (G, K), C (G, 2, p, K) as the format stores them, and the direct term (G, p) to add to D.
    """
    main, rest = C[..., 0::2], C[..., 1::2]
    direct = (rest[:, 0] * B[:, None, 1::2]).sum(-1)
    direct = direct + (main[:, 1] * B[:, None, 0::2] + rest[:, 1] * B[:, None, 1::2]).sum(-1)
    stored = np.stack([main[:, 0], main[:, 1] * poles[:, None, 0::2]], axis=1)
    return poles[:, 0::2], B[:, 0::2], stored, pairing * direct.real
