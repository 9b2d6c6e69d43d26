"""What a step of one sequence costs a layer that runs as a recurrence."""

from __future__ import annotations

import numpy as np

from lastcli.engine.system import DiagonalSystem

__all__ = ["step_cost"]


def step_cost(system: DiagonalSystem) -> tuple[int, int]:
    """(real numbers that a sequence carries, real multiply-adds of a step) of one layer.

    A complex state is two numbers: λx takes four products, B u two an input and Re(C x) two an output; a layer whose
    poles, B and C are all real takes half of that and a quarter for λx. D takes one product for each of its entries.
    A backward scan has states of its own, which are driven and moved like those of the forward one.
    """
    states = system.directions * int(np.prod(system.poles.shape))
    real = not any(np.iscomplexobj(part) and np.any(np.imag(part)) for part in (system.poles, system.B, system.C))
    part = 1 if real else 2
    products = states * (part * part + part * (system.inputs + system.outputs))
    through = 0
    if system.D is not None:
        through = system.groups * system.outputs * (1 if system.feedthrough == "diagonal" else system.inputs)
    return part * states, products + through
