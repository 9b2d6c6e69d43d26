"""Mamba 1 (Gu and Dao, arXiv 2312.00752) and Mamba 2 (Dao and Gu, arXiv 2405.21060), alone or in hybrids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.errors import InputError
from lastcli.families.base import Config, Decoding, Family, Forward, Layer, Match, Option, Read, Tensors, task_option
from lastcli.families.mamba import s6, s6_heads, ssd
from lastcli.families.mamba.model import around, model_forward
from lastcli.families.mamba.names import MAMBA1, missing, mixers
from lastcli.families.mamba.upstream import options_of, with_state_size
from lastcli.families.parts.leaves import match_of

if TYPE_CHECKING:
    from lastcli.engine.protocol import Reduction
    from lastcli.engine.selective.system import S6HeadsSystem, S6System, SSDSystem

__all__ = ["Mamba", "Mamba2"]

_AROUND = (
    Option("norm_eps", float, 1e-5, "added to the mean square in the norms"),
    task_option("regression", help="of a stack with a head: what the outputs are"),
    Option("pooling", str, "last", "of a stack with a head: which steps it reads", ("last", "pool")),
    Option("state_size", int, 0, "states of each layer (the largest, where they differ)"),
)


class _Mamba(Family):
    """What both have in common: one state size in the configuration, and the model around."""

    version = 0
    layouts = ("uniform", "padded", "ragged")
    sized = frozenset({"state_size"})
    default_methods = ("uniform-magnitude", "obs")

    def match(self, tensors: Tensors) -> Match:
        """Mixers by `A_log`, two-dimensional in Mamba 1 (three in Zamba's heads), one-dimensional in Mamba 2."""
        return match_of(
            self.name,
            (
                (base, len(roles), missing(base, roles, self.version))
                for base, roles in mixers(tensors, self.version).items()
            ),
        )

    def infer(self, tensors: Tensors) -> dict[str, Any]:
        """The state size; of Mamba 2 only once the groups are known (`layers`)."""
        return {}

    def idle(self, tensors: Tensors) -> frozenset[str]:
        """Options of the head, where there is none."""
        found = around_of(self, tensors)
        return frozenset({"task", "pooling"}) if found is None or found.tokens else frozenset()

    def upstream(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """What a configuration of transformers or mamba_ssm settles."""
        return options_of(document, frozenset(option.key for option in self.options))

    def written_config(self, document: Mapping[str, Any], states: Sequence[int]) -> dict[str, Any]:
        """Their configuration for another state size."""
        return with_state_size(document, max(states))

    def for_sizes(self, config: Config, sizes: Sequence[int]) -> dict[str, Any]:
        """The description of a model whose layers have these state sizes."""
        return {**config, "state_size": max(sizes)}

    def forward(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
        """The language model or the plain stack; hybrids have blocks that are not known here."""
        found = around_of(self, tensors, layers)
        return None if found is None else model_forward(tensors, config, found)

    def size_note(self, sizes: Sequence[int]) -> str | None:
        """Kernels are written for some state counts."""
        odd = sorted({size for size in sizes if size & (size - 1) or size < 16})
        if not odd:
            return None
        return (
            f"State counts of {', '.join(map(str, odd))}: mamba_ssm's Triton kernels round up to powers of two, and "
            "the CUDA scan of llama.cpp knows fixed sizes and leaves others to the CPU; --states-multiple 8, 16 or 32 "
            "keeps to multiples."
        )

    def inside(self, layer: Layer, tensors: Tensors) -> dict[str, int]:
        """d_inner, groups and head_dim of Mamba 2 or dt_rank of Mamba 1, and the bytes that a sequence carries."""
        shapes = {role: tensors[name].shape for role, name in layer.tensors.items()}
        d = shapes["out_proj"][1]
        sizes = {"dt_rank": shapes["dt_proj"][-1]} if self.version == 1 else {}
        if len(shapes["A_log"]) != 2:
            sizes = {"groups": layer.sets, "head_dim": d // shapes["A_log"][0], **sizes}
        return {"d_inner": d, **sizes, "state_bytes": 4 * _mixer_cost(layer, tensors)[0]}

    def decoding(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Decoding:
        """States, windows and products of all mixers, and the read-out of the outputs."""
        found = around_of(self, tensors, layers)
        costs = [_mixer_cost(layer, tensors) for layer in layers]
        state, products = sum(cost[0] for cost in costs), sum(cost[1] for cost in costs)
        if found is not None:
            products += tensors[found.head or found.before].size
            products += 0 if found.tokens else tensors[found.before].size
        return Decoding(4 * state, products)


def around_of(family: _Mamba, tensors: Tensors, layers: Sequence[Layer] | None = None) -> Any:
    """What is around the mixers, or None."""
    found = mixers(tensors, family.version)
    bases = [base for base, roles in found.items() if not missing(base, roles, family.version)]
    if not bases or len(bases) < len(found):
        return None
    own = layers or [Layer(base, 0, 1, found[base]) for base in bases]
    return around(tensors, own, bases)


def _mixer_cost(layer: Layer, tensors: Tensors) -> tuple[int, int]:
    """(numbers that a sequence carries, multiply-adds of a step) of one mixer.

    A number of the state is multiplied by its decay and added to, driven, and read: three. The window of the
    convolution holds all but the present step.
    """
    names = layer.tensors
    channels = tensors[names["out_proj"]].shape[1]
    taps = tensors[names["conv"]]
    window = taps.size // taps.shape[-1] * (taps.shape[-1] - 1)
    matrices = ("in_proj", "conv", "x_proj", "dt_proj", "out_proj")
    products = sum(tensors[names[role]].size for role in matrices if role in names)
    return channels * layer.states + window, products + 3 * channels * layer.states


def _in_heads(layer: Layer, read: Read) -> bool:
    return read(layer.tensors["A_log"]).ndim == 3


class Mamba(_Mamba):
    """Mamba 1: one index of states for all channels, B and C straight from `x_proj`."""

    name = "mamba"
    title = "Mamba"
    help = "selective layers of Mamba 1, in mamba_ssm's, transformers' and plain copies' names"
    source = "arXiv 2312.00752, github.com/state-spaces/mamba"
    page = "docs/families/mamba.md"
    version = 1
    frozen_figures = (
        "With 8 of 16 states, small models lost 0.1560 nats by last, 0.0833 by aire and 0.0248 by obs with the "
        "calibrated refit (docs/families/mamba.md)."
    )
    options = (
        *_AROUND,
        Option("inner_norms", bool, False, "RMS norms over step, B and C (FalconMamba, Jamba)"),
        Option("inner_eps", float, 1e-6, "added to the mean square in those"),
    )

    def infer(self, tensors: Tensors) -> dict[str, Any]:
        """The state size, and whether there are norms over step, B and C."""
        found = mixers(tensors, 1).values()
        proven: dict[str, Any] = {}
        sizes = [tensors[roles["A_log"]].shape[-1] for roles in found]
        if sizes:
            proven["state_size"] = max(sizes)
        if any("B_norm" in roles for roles in found):
            proven["inner_norms"] = True
        return proven

    def layers(self, tensors: Tensors, config: Config) -> tuple[Layer, ...]:
        """Every mixer in running order, its shapes checked."""
        found = mixers(tensors, 1).items()
        return tuple(
            (s6_heads if len(tensors[roles["A_log"]].shape) == 3 else s6).layer_of(base, roles, tensors)
            for base, roles in found
            if all(role in roles for role in MAMBA1)
        )

    def inexact(self, layer: Layer, config: Config) -> str | None:
        """Norms over B and C take their mean square over the states."""
        if not config["inner_norms"] and "B_norm" not in layer.tensors:
            return None
        return (
            f"{layer.name} has RMS norms over B and C (FalconMamba, Jamba), whose mean squares run over the states: "
            "dropping some changes what is left, so the result is not exact."
        )

    def system(self, layer: Layer, config: Config, read: Read) -> S6System | S6HeadsSystem:
        """The mixer from its input to its output."""
        if _in_heads(layer, read):
            return s6_heads.system_of(layer, read)
        return s6.system_of(layer, read, config["inner_norms"], config["inner_eps"])

    def rebuild(
        self, layer: Layer, config: Config, read: Read, reduction: Reduction, size: int
    ) -> dict[str, np.ndarray | None]:
        """Columns of `A_log`, rows of `x_proj`, and what was refitted."""
        return (s6_heads if _in_heads(layer, read) else s6).rebuilt(layer, read, reduction, size)

    def magnitudes(self, layer: Layer, config: Config, read: Read) -> np.ndarray:
        """Of a column of `A_log` and the rows of B and C."""
        return (s6_heads if _in_heads(layer, read) else s6).magnitudes(layer, read)


class Mamba2(_Mamba):
    """Mamba 2: heads with one pole each, B and C behind a convolution, groups of heads with states of their own."""

    name = "mamba2"
    title = "Mamba 2"
    help = "selective layers of Mamba 2, alone or in hybrids (Bamba, Zamba 2, Nemotron-H, Granite 4, Falcon-H1)"
    source = "arXiv 2405.21060, github.com/state-spaces/mamba"
    page = "docs/families/mamba2.md"
    version = 2
    frozen_figures = (
        "With 8 of 32 states, the accuracy of small models on recall was 64.74% by last and aire and 92.02% by obs "
        "with the calibrated refit (docs/families/mamba2.md)."
    )
    options = (
        *_AROUND,
        Option("groups", int, 1, "groups of heads that share B and C (`n_groups`)"),
        Option("norm_before_gate", bool, False, "the norm comes before the gate"),
        Option("step_limits", str, "0.0,inf", "least and largest step (`time_step_limit`)"),
        Option("input_scale", float, 1.0, "what the mixer's input is multiplied by (Falcon-H1: `ssm_in_multiplier`)"),
        Option(
            "row_scales",
            str,
            "1.0,1.0,1.0,1.0,1.0",
            "what the projections to z, x, B, C and the step are multiplied by (Falcon-H1: `ssm_multipliers`)",
        ),
    )

    def layers(self, tensors: Tensors, config: Config) -> tuple[Layer, ...]:
        """Every mixer in running order, its shapes checked.

        Raises:
            InputError: another state size is said than the tensors have.
        """
        found = mixers(tensors, 2).items()
        layers = tuple(
            ssd.layer_of(base, roles, tensors, config["groups"]) for base, roles in found if not missing(base, roles, 2)
        )
        said, largest = config["state_size"], max((layer.states for layer in layers), default=0)
        if said and said != largest:
            raise InputError(
                f"state_size is said to be {said}, but the tensors hold {largest} states ({config['groups']} groups); "
                "a config.json must be that of its tensors, so correct or replace it."
            )
        return layers

    def system(self, layer: Layer, config: Config, read: Read) -> SSDSystem:
        """The mixer from its input to its output."""
        return ssd.system_of(layer, config, read)

    def rebuild(
        self, layer: Layer, config: Config, read: Read, reduction: Reduction, size: int
    ) -> dict[str, np.ndarray | None]:
        """Rows of `in_proj`, channels of `conv1d`, and what was fitted."""
        return ssd.rebuilt(layer, config, read, reduction, size)

    def magnitudes(self, layer: Layer, config: Config, read: Read) -> np.ndarray:
        """Of the rows of B and C, their taps and biases."""
        return ssd.magnitudes(layer, read)
