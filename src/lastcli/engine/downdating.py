"""The inverse of a matrix that loses rows and columns, without a pass over all of it for each of them.

Taking the block q away from the inverse A changes all of it, by A_:q (A_qq)⁻¹ A_q:. What an elimination asks for until
the next block goes is one column and the blocks on the diagonal; so these changes are kept as factors, and put in a
number at a time by one matrix product (delayed updates, as in blocked factorizations with pivoting).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["DRIFT", "MOST_REFRESHES", "PROBES", "UNROLLED", "Inverse", "Probe", "signs"]

Array = Any

PROBES = 4
"""How many random signs look at an inverse."""
DRIFT = 1e-8
"""An inverse whose product with the matrix is so far from the identity is computed afresh,"""
MOST_REFRESHES = 64
"""but not more often than this in one go: each time costs as much as the eliminations of that many states."""
UNROLLED = 8
"""Blocks up to this many features are written out; larger ones (selective layers) go to the linear algebra library."""


class Inverse(NamedTuple):
    """The inverse of M over the states that are left, A - columnsᵀ rows.

    Attributes:
        A: (G, b·n, b·n).
        columns, rows: (G, T, b, b·n), for T states; zeros for those that have not yet gone.
    """

    A: Array
    columns: Array
    rows: Array

    @classmethod
    def of(cls, A: Array, size: int, together: int) -> Inverse:
        """A as it is, with room for the changes of `together` states of `size` features."""
        none = jnp.zeros((len(A), together, size, A.shape[1]))
        return cls(A, none, none)

    def settled(self) -> Array:
        """A with all changes."""
        G, T, b, F = self.columns.shape
        return self.A - jnp.swapaxes(self.columns.reshape(G, T * b, F), 1, 2) @ self.rows.reshape(G, T * b, F)

    def column(self, q: Array) -> Array:
        """The columns of the states q (G,), (G, b, b, n): [k, i] is what feature i of all states has in feature k."""
        return jax.vmap(self._column)(*self, q)

    def changed(self, place: Array, column: Array, row: Array) -> Inverse:
        """With one more change, columnᵀ row, (G, b, b, n) each; A itself is carried through as it is."""
        G, _, b, F = self.columns.shape
        columns = self.columns.at[:, place].set(column.reshape(G, b, F))
        return self._replace(columns=columns, rows=self.rows.at[:, place].set(row.reshape(G, b, F)))

    @staticmethod
    def _column(A: Array, columns: Array, rows: Array, q: Array) -> Array:
        T, b, F = columns.shape
        # by symmetry its rows, which lie together
        own = A.reshape(b, F // b, F)[:, q] - jnp.einsum("tlk,tlf->kf", columns.reshape(T, b, b, -1)[..., q], rows)
        return own.reshape(b, b, F // b)


class Probe(NamedTuple):
    """What rounding has made of the inverse, seen through a few random signs z.

    For what is left, z M A is z. A product with M itself at every step would cost as much as the elimination.

    Attributes:
        z: (G, k, b, n), zero for states that have gone.
        zM: (G, k, b, n).
    """

    z: Array
    zM: Array

    @classmethod
    def of(cls, M: Array, here: Array, size: int) -> Probe:
        """Of M (G, b·n, b·n), where the features `here` (G, b·n) are left, `size` = b of every state."""
        G, F = here.shape
        z = jnp.where(here[:, None], jnp.asarray(signs(PROBES, F))[None], 0)
        return cls(z.reshape(G, -1, size, F // size), (z @ M).reshape(G, -1, size, F // size))

    def drift(self, column: Array, alive: Array, q: Array) -> Array:
        """How far M A is from the identity in the columns of the states q (G,): root mean square over the signs."""
        # What rounding leaves of the states that have gone would make up for the errors in the others.
        column = jnp.where(alive[:, None, None], column, 0)
        left = jnp.einsum("gzin,gkin->gzk", self.zM, column) - _of_state(self.z, q)
        return jnp.sqrt((left**2).mean(axis=1)).max()

    def without(self, M: Array, q: Array) -> Probe:
        """Once the states q (G,) have gone."""
        b, n = self.z.shape[2:]
        rows = jax.vmap(lambda M, q: M.reshape(b, n, b, n)[:, q])(M, q)
        zM = self.zM - jnp.einsum("gzk,gkin->gzin", _of_state(self.z, q), rows)
        return Probe(jnp.where(jnp.arange(n)[None, None, None] == q[:, None, None, None], 0, self.z), zM)


def _of_state(values: Array, q: Array) -> Array:
    """(G, …, n) at the states q (G,)."""
    return jax.vmap(lambda value, q: value[..., q])(values, q)


def signs(count: int, length: int) -> np.ndarray:
    """(count, length) of random ±1, the same ones always."""
    return np.random.default_rng(0).choice([-1.0, 1.0], (count, length))
