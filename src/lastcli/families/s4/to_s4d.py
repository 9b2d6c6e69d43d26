"""Writing any multi-SISO layer with one head and one direction as stand-alone S4D, the form that S4D code loads.

Everything the form does not store goes into C: B is 1, and the gain of the zero-order hold is divided out.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Family, Layer, Read, Tensors
from lastcli.families.parts import multi_siso as ms
from lastcli.families.parts.cancellation import cancellation
from lastcli.families.parts.discretise import continuous, discrete
from lastcli.families.parts.leaves import split
from lastcli.families.parts.storage import pad_states, store
from lastcli.families.parts.stored_kernel import fit_residues
from lastcli.families.s4.models.sequence_names import sequence_options

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem

__all__ = ["Convertible", "s4d_config", "s4d_layer", "with_output"]


def with_output(layer: Layer, tensors: Tensors) -> Layer:
    """The layer with the block's output map ("output"), where S4D stores that as a 1×1 convolution instead."""
    base = _owner(layer).removesuffix("layer.")
    roles = dict(layer.tensors)
    for stem in (f"{base}output_linear.0.", f"{base}output_linear."):
        if stem + "weight" in tensors and len(tensors[stem + "weight"].shape) == 2:
            roles["output"] = stem + "weight"
            if stem + "bias" in tensors and len(tensors[stem + "bias"].shape) == 2:
                roles["output_bias"] = stem + "bias"
            break
    return dataclasses.replace(layer, tensors=roles)


def s4d_layer(
    layer: Layer, system: DiagonalSystem, dt: np.ndarray, size: int, read: Read
) -> dict[str, np.ndarray | None]:
    """What becomes of a layer's tensors when it is written as stand-alone S4D: new arrays, and None for what goes.

    Args:
        layer: of another family; the role "output" names a linear map that S4D stores as a convolution.
        system: its response, reduced or not; multi-SISO, one head and one direction.
        dt: (H,) step sizes to write.
        size: stored states to write; those beyond the system's are inert.
        read: gives the layer's old tensors.

    Raises:
        UnsupportedModelError: S4D has no room for several heads or a backward direction.
    """
    if not system.multi or system.outputs != 1 or system.directions != 1 or system.modes != 1:
        raise UnsupportedModelError(
            f"{layer.name}: stand-alone S4D holds one head and one direction, but this layer has {system.outputs} and "
            f"{system.directions}; keep its own form."
        )
    base, like = _base(layer), read(layer.tensors["C" if "C" in layer.tensors else "W"]).real
    kernel = f"{base}kernel."
    log_dt = store(np.log(np.asarray(dt, np.float64)), like, f"{kernel}log_dt")
    # The poles are divided by the step as it is stored, so that their product is exact again.
    step = np.exp(log_dt.astype(np.float64))[:, None]
    a = continuous("zoh", np.asarray(system.poles), step)
    values = {
        "log_A_real": pad_states(ms.inverse_transform(-a.real, "exp"), size, np.log(ms.INERT_DECAY)),
        "A_imag": pad_states(a.imag, size),
    }
    stored = {role: store(array, like, kernel + role) for role, array in values.items()}
    kept = {role: array[:, : a.shape[1]].astype(np.float64) for role, array in stored.items()}
    poles, gain = discrete(np, "zoh", -np.exp(kept["log_A_real"]) + 1j * kept["A_imag"], step)
    residues = np.asarray(system.C)[:, 0] * np.asarray(system.B)[:, None, :, 0] * (system.pairing / 2)
    residues = fit_residues(np.asarray(system.poles), residues, poles, gain, like.dtype, cancellation(system))
    stored["C"] = store(pad_states(residues[:, 0] / gain, size), like, f"{kernel}C")
    changes: dict[str, np.ndarray | None] = dict.fromkeys(layer.tensors.values())
    changes |= {kernel + role: array for role, array in stored.items()}
    changes[f"{kernel}log_dt"] = log_dt
    if system.D is not None:
        changes[f"{base}D"] = store(np.asarray(system.D)[:, 0, 0], like, f"{base}D")
    if "output" in layer.tensors:
        changes[layer.tensors["output"]] = np.ascontiguousarray(read(layer.tensors["output"])[..., None])
    if "output_bias" in layer.tensors:
        changes[layer.tensors["output_bias"]] = read(layer.tensors["output_bias"]).reshape(-1)
    return changes


def s4d_config(config: Config) -> dict[str, Any]:
    """The description of a model written as S4D: what S4D knows of the old one."""
    known = {option.key: option.default for option in sequence_options(mask_padding=False)}
    return {"family": "s4d", **{key: config.get(key, default) for key, default in known.items()}}


class Convertible(Family):
    """A family whose layers can be written as stand-alone S4D.

    Attributes:
        converts_to: names of the families that `convert` writes.
    """

    converts_to: tuple[str, ...] = ("s4d",)

    @abc.abstractmethod
    def step_sizes(self, layer: Layer, config: Config, read: Read) -> np.ndarray:
        """One step size a channel, (H,) float64."""

    def convert(
        self, tensors: Tensors, config: Config, read: Read, target: str
    ) -> tuple[dict[str, np.ndarray | None], dict[str, Any]]:
        """As `Family.convert`, to stand-alone S4D.

        Raises:
            UsageError: this family does not convert to `target`.
            UnsupportedModelError: a layer has no equal in the target's form.
        """
        if target not in self.converts_to:
            return super().convert(tensors, config, read, target)
        from lastcli.engine.system import diagonal

        changes: dict[str, np.ndarray | None] = {}
        for layer in self.layers(tensors, config):
            system = diagonal(self.system(layer, config, read))
            step = self.step_sizes(layer, config, read)
            changes |= s4d_layer(with_output(layer, tensors), system, step, system.states, read)
        return changes, s4d_config(config)


def _owner(layer: Layer) -> str:
    return ms.owner(split(layer.tensors["C" if "C" in layer.tensors else "W"])[0])


def _base(layer: Layer) -> str:
    """Prefix of the new names: the block that holds the output map where there is one, else the layer itself."""
    owner = _owner(layer)
    block = owner.removesuffix("layer.")
    return block if layer.tensors.get("output", "").startswith(f"{block}output_linear") else owner
