"""Free values of a selective layer for gradient descent: what reads its states, and what makes B and the step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lastcli.engine.selective.system import S6System, SelectiveSystem

__all__ = ["SelectiveVariables", "selective_variables"]

Array = Any

_FREE = {
    "s6": ("to_B", "to_C", "D", "out_proj", "A"),
    "ssd": ("to_B", "to_C", "B_bias", "C_bias", "conv_B", "conv_C", "conv_B_bias", "conv_C_bias", "D", "out_proj"),
}


@partial(jax.tree_util.register_dataclass, data_fields=["base", "units"], meta_fields=[])
@dataclass(frozen=True)
class SelectiveVariables:
    """How the free values of one layer become its system; as `protocol.Variables`.

    Attributes:
        base: the system at the start.
        units: what one unit of each value changes: the root mean square of the array.
    """

    base: SelectiveSystem
    units: dict[str, Array]

    @property
    def start(self) -> dict[str, Array]:
        """The values at the start: zeros."""
        return {name: np.zeros(np.shape(getattr(self.base, name))) for name in self.units}

    def system(self, values: dict[str, Array]) -> Any:
        """The system at these values, in their precision; A moves by factors, so it stays negative."""
        real = jnp.result_type(next(iter(values.values())))
        new = {name: jnp.asarray(getattr(self.base, name), real) for name in values}
        for name, value in values.items():
            unit = jnp.asarray(self.units[name], real)
            new[name] = new[name] * jnp.exp(value) if name == "A" else new[name] + unit * value
        rest = {
            name: jnp.asarray(array, real)
            for name, array in vars(self.base).items()
            if name not in new and hasattr(array, "shape") and array.shape
        }
        return self.base.replace(**rest, **new)

    def padded(self) -> SelectiveVariables:
        """The layer as it is: its states are few beside its channels."""
        return self


def selective_variables(system: SelectiveSystem) -> SelectiveVariables:
    """The free values, all zero at the system given."""
    names = _FREE["s6" if isinstance(system, S6System) else "ssd"]
    free = [name for name in names if getattr(system, name) is not None]
    arrays = {name: np.asarray(getattr(system, name), np.float64) for name in free}
    units = {name: np.asarray(np.sqrt((array**2).mean()) or 1.0) for name, array in arrays.items()}
    return SelectiveVariables(system, units)
