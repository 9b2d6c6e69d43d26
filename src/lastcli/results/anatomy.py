"""What the pictures of a report are drawn from; part of a result where it was asked for, and of no JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Anatomy", "Costs", "LayerAnatomy", "Origin", "SourceFile"]


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a model weighs, and what a step of one sequence costs.

    Attributes:
        bytes: of the file.
        state_bytes: what a sequence carries from step to step, as float32; None where models read backwards as well.
        multiply_adds: of one step; None likewise.
        whole: whether both are of the whole model; else of its state space layers alone.
    """

    bytes: int
    state_bytes: int | None = None
    multiply_adds: int | None = None
    whole: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerAnatomy:
    """One layer of the full model.

    Attributes:
        states: of one index set; `sets` is 1 for MIMO and the number of channels for multi-SISO.
        poles: (P,) complex, the discrete eigenvalues of all index sets; None where they depend on the input.
        energy: (sets, states) of the method `Anatomy.energy_of`; None where there is none.
    """

    name: str
    states: int
    sets: int
    poles: Any = None
    energy: Any = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Anatomy:
    """The full model and what became of its states.

    Attributes:
        energy_of: the method whose energies the layers have; empty where there are none.
        kept: for each row of a sweep (one for a pruning), the kept states (sets, K) of each layer; empty for a method
            that moves the poles, since no state is kept then.
        shown: the row that is shown layer by layer, None where nothing was removed.
        poles_after: (P',) complex of each layer of that row.
        before, costs: of the full model, and of each row.
    """

    layers: tuple[LayerAnatomy, ...]
    energy_of: str = ""
    kept: tuple[tuple[Any, ...], ...] = ()
    shown: int | None = None
    poles_after: tuple[Any, ...] = ()
    before: Costs | None = None
    costs: tuple[Costs, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file that was read; `sha256` of a folder is that of its files' names and contents (`Checkpoint.sha256`)."""

    role: str
    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a result was made from.

    Attributes:
        command: as typed, without the program; empty when it was made in Python.
        recipe: the options of the run as a recipe would have them.
        files: the checkpoint and the data.
        versions: of `last` and of what computes.
        moment: when it was made, UTC.
    """

    command: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[SourceFile, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    moment: str = ""
