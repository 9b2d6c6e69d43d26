"""Event-SSM (Schöne et al., arXiv 2404.18508): S5 layers over event streams, in stages that may widen.

Paths below `params`: `encoder/encoder/embedding`, `encoder/stages_s/SequenceLayer_l/` with `S5SSM_0/...` (the layer),
`BatchNorm_0` or `LayerNorm_0`, `Dense_0` (gate) and, where the width changes, `Dense_1` (skip connection); `decoder`.

The published model discretises every step with the time since the last event. A layer is reduced at one time between
events, the option `timestep`; every pooling before it multiplies that by its stride.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Forward, Layer, Match, Option, Read, Tensors
from lastcli.families.event_ssm.names import around, needed_by, place_of, staged
from lastcli.families.parts.leaves import canonical, layer_name, match_of
from lastcli.families.parts.stepping import step_by_step
from lastcli.families.s5.layers import S5Layers, check_shapes, decode, lacking

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem

__all__ = ["EventSSM"]


@dataclass(frozen=True)
class StagedLayer(Layer):
    """A layer that knows all layers of its model: the time between events is one for all of them."""

    every: tuple[Layer, ...] = ()


class EventSSM(S5Layers):
    """S5 layers on asynchronous events, and the published classifier."""

    name = "event_ssm"
    title = "Event-SSM"
    help = "S5 layers over streams of events, in stages"
    source = "arXiv 2404.18508, github.com/Efficient-Scalable-Machine-Learning/event-ssm"
    page = "docs/families/event_ssm.md"
    options = (
        Option("discretization", str, "async", "how the layers are made discrete", ("async", "dirac", "zoh")),
        Option("conj_sym", bool, False, "each stored state stands for a conjugate pair"),
        Option("clip_eigs", bool, False, "real parts of the eigenvalues are clipped at -1e-4"),
        Option("prenorm", bool, True, "normalise before the layer instead of after the skip connection"),
        Option("norm", str, "layer", "normalisation", ("batch", "layer")),
        Option("mode", str, "pool", "what the head sees (`classification_mode`)", ("pool", "timepool", "last")),
        Option("pooling_stride", int, 1, "events pooled by the first layer of each stage"),
        Option("pooling_mode", str, "last", "how they are pooled", ("last", "avgpool", "timepool")),
        Option("step_rescale", float, 1.0, "factor on all step sizes"),
        Option("timestep", float, 1.0, "time between two events at which layers are scored, in the data's unit"),
        Option("timesteps", bool, False, "x is (n, L, 2): a token and the time since the last event"),
    )

    def match(self, tensors: Tensors) -> Match:
        """Layers are S5 layers below `encoder/stages_s/SequenceLayer_l/S5SSM_0`."""
        found = match_of(
            self.name,
            ((prefix, len(roles), lacking(roles)) for prefix, roles in staged(tensors).items()),
        )
        # Below such paths the tensors around the layers are this family's too.
        return dataclasses.replace(found, found=len(around(tensors)) if found.found else 0)

    def infer(self, tensors: Tensors) -> dict[str, Any]:
        """The norm, by its name."""
        leaves = {part for name in tensors for part in canonical(name).split("/")}
        found = [norm for norm in ("batch", "layer") if f"{norm.capitalize()}Norm_0" in leaves]
        return {"norm": found[0]} if len(found) == 1 else {}

    def layers(self, tensors: Tensors, config: Config) -> tuple[Layer, ...]:
        """Every layer in running order, its shapes checked."""
        found = [
            Layer(layer_name(prefix), check_shapes(roles, tensors, square=False), 1, dict(roles))
            for prefix, roles in staged(tensors).items()
        ]
        return tuple(StagedLayer(own.name, own.states, 1, own.tensors, tuple(found)) for own in found)

    def time(self, layer: Layer, config: Config) -> float:
        """The time between two inputs of the layer: `timestep` times the strides before it."""
        stage, position = place_of(layer)
        return float(config["timestep"]) * int(config["pooling_stride"]) ** (stage + (position > 0))

    def system(self, layer: Layer, config: Config, read: Read) -> DiagonalSystem:
        """The layer at its constant time between events.

        Raises:
            UnsupportedModelError: the data's own times are wanted (`timesteps`), and a state turns by more than half
                a turn between two events, so that its pole does not tell how far it turns in another time.
        """
        if config["timesteps"]:
            turn = self._turn(layer, config, read)
            if turn.max() > math.pi:
                every = layer.every if isinstance(layer, StagedLayer) else (layer,)
                fastest = max(float(self._turn(other, config, read).max()) for other in every)
                raise UnsupportedModelError(
                    f"{layer.name}: state {int(turn.argmax())} turns by {turn.max():.3g} rad between two events; set "
                    f"timestep below {_rounded_down(config['timestep'] * math.pi / fastest)}, the smallest limit of "
                    "any layer, to use the events' own times."
                )
        return super().system(layer, config, read)

    def _turn(self, layer: Layer, config: Config, read: Read) -> np.ndarray:
        """(N,) angle in rad by which every state turns between two events."""
        stored = decode(layer, config, read, self.time(layer, config))
        return np.abs(stored.poles.imag) * stored.step * stored.time

    def forward(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
        """The published classifier, where all its tensors are there."""
        found = around(tensors)
        if "encoder/encoder/embedding" not in found or "decoder/kernel" not in found:
            return None
        names = needed_by(found, config, layers)
        tokens = tensors[names["encoder/encoder/embedding"]].shape[0]
        places = [place_of(layer) for layer in layers]
        times = [self.time(layer, config) for layer in layers]

        def apply(params: Mapping[str, Any], systems: Sequence[Any], x: Any, lengths: Any) -> tuple[Any, Any]:
            from lastcli.families.event_ssm.model import classify

            values = {path: params[name] for path, name in names.items()}
            return classify(values, places, times, config, systems, x, lengths)

        return Forward(
            apply=apply,
            features=2 if config["timesteps"] else tokens,
            outputs=tensors[names["decoder/kernel"]].shape[1],
            params=tuple(names.values()),
            input_step=int(config["pooling_stride"]) ** (1 + max(stage for stage, _ in places)),
            **self._stepped(names, places, times, config, tensors[names["decoder/kernel"]].shape[0]),
        )

    def _stepped(
        self,
        names: Mapping[str, str],
        places: Sequence[tuple[int, int]],
        times: Sequence[float],
        config: Config,
        width: int,
    ) -> dict[str, Any]:
        """How the classifier is run event by event, or why it is not."""
        if config["timesteps"]:
            return {"unsteppable": "its layers move by the events' own times"}
        if int(config["pooling_stride"]) > 1:
            return {"unsteppable": "its layers pool several events into one"}
        if config["mode"] == "timepool":
            return {"unsteppable": "its head weighs the steps by their times"}

        def encoded(params: Mapping[str, Any], systems: Sequence[Any], x: Any) -> tuple[Any, tuple[Any, ...]]:
            from lastcli.families.event_ssm import model

            values = {path: params[name] for path, name in names.items()}
            h, _, inputs = model.encoded(values, places, times, config, systems, x)
            return h, inputs

        def decoded(params: Mapping[str, Any], h: Any) -> Any:
            from lastcli.families.event_ssm import model

            return model.decoded({path: params[name] for path, name in names.items()}, config, h)

        over = "mean" if config["mode"] == "pool" else "last"
        return step_by_step(encoded, decoded, over=over, sequence=False, width=width)


def _rounded_down(limit: float) -> str:
    """Three digits that are not above the limit."""
    unit = 10.0 ** (math.floor(math.log10(limit)) - 2)
    return f"{math.floor(limit / unit) * unit:.3g}"
