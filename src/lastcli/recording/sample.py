"""An even sample of all sequences that came by, within bounds of number and memory."""

from __future__ import annotations

import bisect

import numpy as np

__all__ = ["SAMPLE_BYTES", "Sample"]

# One layer's sequences.
SAMPLE_BYTES = 32 * 2**20


class Sample:
    """The sequences with the smallest of the random numbers that each draws: bottom-k sampling (Cohen and Kaplan 2007).

    Every sequence is as likely to be in it as any other, however many there are. Layers that draw from the same seed
    and see the same number of sequences keep the same ones.

    Args:
        most: sequences at most.
        seed: of the draws.
    """

    def __init__(self, most: int, seed: int) -> None:
        self.most = most
        self.seen = 0
        self._random = np.random.default_rng(seed)
        self._keys: list[float] = []
        self._kept: list[tuple[np.ndarray, np.ndarray]] = []
        self._bytes = 0
        self._limit = 1.0 if most else 0.0  # no key from here on comes in

    def add(self, u: np.ndarray, weights: np.ndarray) -> None:
        """Offer sequences u (n, L, H) with the weights (n, L) of their steps; those without weight do not count."""
        for sequence, weight in zip(u, weights):
            if not weight.any():
                continue
            self.seen += 1
            key = float(self._random.random())
            if key >= self._limit:
                continue
            place = bisect.bisect(self._keys, key)
            self._keys.insert(place, key)
            self._kept.insert(place, (sequence.copy(), weight.copy()))
            self._bytes += sequence.nbytes
            while len(self._keys) > self.most or (self._bytes > SAMPLE_BYTES and len(self._keys) > 1):
                self._limit = self._keys.pop()
                self._bytes -= self._kept.pop()[0].nbytes

    def arrays(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(n, L, H) and (n, L) float32 weights, shorter sequences filled with zeros of weight 0; None without any."""
        if not self._kept:
            return None
        steps = max(len(sequence) for sequence, _ in self._kept)
        fill = [steps - len(sequence) for sequence, _ in self._kept]
        u = np.stack([np.pad(sequence, ((0, more), (0, 0))) for (sequence, _), more in zip(self._kept, fill)])
        weights = np.stack([np.pad(weight, (0, more)) for (_, weight), more in zip(self._kept, fill)])
        return u, weights.astype(np.float32)
