"""Multiply-adds of a step of a model around its state space layers, counted in what its own forward pass computes.

The pass is traced with layers of no states, so that what is counted are the matrix products and convolutions of the
encoder, the gates, the feed-forward networks, the attention and the head; norms and activations are not. Nothing is
compiled or run. What the layers cost is `engine.costs.step_cost`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lastcli.engine.engines import engine_of
from lastcli.engine.system import DiagonalSystem
from lastcli.evaluation.passes import in_precision, precision_of
from lastcli.families.base import Forward

__all__ = ["multiply_adds", "products_around"]


def products_around(
    forward: Forward, params: Mapping[str, np.ndarray], systems: Sequence[DiagonalSystem], length: int
) -> int:
    """Multiply-adds of one step of one sequence, those of the layers left out.

    Args:
        forward: the model.
        params: its parameters; only their shapes are looked at.
        systems: its layers.
        length: of the sequences. A model with a `step` is counted by that, the head at every step. Of any other it is
            the work of a whole sequence divided by its steps.
    """
    bare = in_precision(forward, [_without_states(system) for system in systems])
    shapes = {name: jax.ShapeDtypeStruct(array.shape, _computed(forward, array)) for name, array in params.items()}
    real = np.dtype(forward.precision)
    step, start = forward.step, forward.start
    stepped = step is not None and start is not None and not any(system.bidirectional for system in systems)

    def of(n: int) -> int:
        if stepped and step is not None and start is not None:
            layers = tuple(engine_of(system).recurrent(system) for system in bare)
            x = _inputs(forward, (n,), real)
            return multiply_adds(step, shapes, layers, start(layers, n), x)
        beside = {"pair": (2,), "series": (forward.series,)}.get(forward.layout, ())
        x = _inputs(forward, (n, *beside, length), real)
        return multiply_adds(lambda params, x: forward.apply(params, bare, x, None)[0], shapes, x)

    with precision_of(forward):
        # what does not grow with the batch prepares weights: nothing that a step costs
        once = of(2) - of(1)
    return once if stepped else round(once / length)


def multiply_adds(function: Callable[..., Any], *arguments: Any) -> int:
    """Products of the matrix multiplications and convolutions of a traceable function; of branches the dearest."""
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _without_states(system: DiagonalSystem) -> DiagonalSystem:
    poles, B, C = np.asarray(system.poles), np.asarray(system.B), np.asarray(system.C)
    return system.replace(poles=poles[:, :0], B=B[:, :0], C=C[..., :0], D=None, feedthrough="none")


def _computed(forward: Forward, array: np.ndarray) -> Any:
    kinds = {"c": np.result_type(forward.precision, np.complex64), "f": np.dtype(forward.precision)}
    return np.dtype(array.dtype) if array.dtype.kind in "iub" else kinds["c" if array.dtype.kind == "c" else "f"]


def _inputs(forward: Forward, shape: tuple[int, ...], real: Any) -> Any:
    if forward.tokens:
        return jax.ShapeDtypeStruct(shape, np.int32)
    return jax.ShapeDtypeStruct((*shape, forward.features), real)


def _count(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            kernel, outputs = equation.invars[1].aval, equation.params["dimension_numbers"].rhs_spec[0]
            total += equation.outvars[0].aval.size * kernel.size // max(kernel.shape[outputs], 1)
        else:
            inner = [_count(one) for one in _inside(equation.params)]
            times = equation.params["length"] if name == "scan" else 1
            total += times * (max(inner, default=0) if name == "cond" else sum(inner))
    return total


def _inside(params: Mapping[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if hasattr(one, "eqns"):
                yield one
            elif hasattr(one, "jaxpr"):
                yield one.jaxpr
