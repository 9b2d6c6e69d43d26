"""Results of `inspect`: what is in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from lastcli.results.base import UNDOCUMENTED, OfModel, plain

if TYPE_CHECKING:
    from lastcli.results.anatomy import Anatomy

__all__ = ["ConfigValue", "InspectResult", "LayerInfo"]


@dataclass(frozen=True, kw_only=True)
class ConfigValue:
    """One key of the model description. `source`: file, sidecar, recipe, flag, tensors or assumed."""

    value: Any
    source: str


@dataclass(frozen=True, kw_only=True)
class LayerInfo:
    """One layer as `inspect` shows it; `max_abs_pole` is None where no tensor was read.

    `states` counts one index set as it is scored and pruned (of a low-rank S4 layer once it is diagonalised), `sets` is
    1 for MIMO and the number of channels for multi-SISO. `inside` are sizes that only some kinds of layers have
    (`Family.inside`); in JSON they are fields of the layer like the others.
    """

    name: str
    states: int
    sets: int = 1
    inputs: int | None = None
    outputs: int | None = None
    directions: int = 1
    max_abs_pole: float | None = None
    parameters: int | None = None
    inside: Mapping[str, int] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The layer's JSON."""
        own = {item.name: plain(getattr(self, item.name)) for item in fields(self) if item.name != "inside"}
        return own | plain(self.inside)


@dataclass(frozen=True, kw_only=True)
class InspectResult(OfModel):
    """What was read, and what was assumed. `states` is the budget: Σ states · sets.

    `state_bytes` is what a sequence carries from step to step as float32, `multiply_adds` of one step; None where
    models are not run step by step.
    """

    command: ClassVar[str] = "inspect"

    container: str
    layers: tuple[LayerInfo, ...]
    states: int
    parameters: int
    bytes: int
    state_bytes: int | None = None
    multiply_adds: int | None = None
    config: Mapping[str, ConfigValue] = field(default_factory=dict)
    title: str = ""
    tensors: int | None = None
    dtypes: Mapping[str, int] = field(default_factory=dict)
    provenance: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    anatomy: Anatomy | None = field(default=None, metadata={UNDOCUMENTED: True})
