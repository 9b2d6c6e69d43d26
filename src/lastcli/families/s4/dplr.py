"""S4 with its diagonal-plus-low-rank kernel (arXiv 2111.00396), versions 0 to 4, read as a diagonal system.

The low-rank term couples the states, and once the kernel has run its C is stored multiplied by I - Ā^L (`l_kernel` is
L), so no state can be dropped by index. Both are undone exactly: Λ - P Pᴴ over the conjugates is diagonalised, the
modes of C are divided by 1 - λ^L, and the layer goes on as a diagonal system with about as many states (a real pole is
stored with half its coefficient). What is written is a diagonal form: stand-alone S4D, or the repository's diagonal
kernel, which also holds several heads and both directions.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Layer, Option, Read, Tensors
from lastcli.families.parts import multi_siso as ms
from lastcli.families.parts.discretise import continuous, discrete
from lastcli.families.parts.dplr import half_spectrum, truncation_factor
from lastcli.families.parts.leaves import split
from lastcli.families.parts.storage import as_complex, pad_states, store
from lastcli.families.parts.two_sided import split_modes
from lastcli.families.s4.family import S4Names
from lastcli.families.s4.kernel import read_outs, store_read_outs, unfold
from lastcli.families.s4.models.sequence_names import find_sequence_model, sequence_options
from lastcli.families.s4.names import (
    S4_OPTIONS,
    audible,
    find_kernels,
    imag_sign,
    is_krylov,
    parameter_of,
    poles_of,
    relu_floor,
    steps_of,
)
from lastcli.families.s4.to_s4d import s4d_config, s4d_layer, with_output

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem, Reduction

__all__ = ["S4DPLR"]

# Stored only for the low-rank kernel; a diagonal one has no use for them.
_LOW_RANK = ("P", "Q", "length", "omega", "z", "w")


class S4DPLR(S4Names):
    """S4 proper: bilinear, low-rank, exactly diagonalised."""

    name = "s4_dplr"
    title = "S4 repository, diagonal plus low rank, V0 to V4"
    help = "low-rank kernels of the S4 repository, diagonalised"
    source = "arXiv 2111.00396, github.com/state-spaces/s4"
    page = "docs/families/s4_dplr.md"
    input_layout = "bhl"
    low_rank = True
    diagonalises = True
    converts_to = ("s4d", "s4")
    options = (
        Option(
            "form",
            str,
            "s4d",
            "what a reduced layer is written as: stand-alone S4D, or the S4 repository's diagonal kernel",
            ("s4d", "s4"),
        ),
        Option(
            "kernel_length",
            int,
            -1,
            "length that the stored C is transformed for; 0: not transformed, -1: as the file says",
        ),
        *S4_OPTIONS,
        *sequence_options(mask_padding=True),
    )

    def infer(self, tensors: Tensors) -> dict[str, Any]:
        """Direction, and the form where stand-alone S4D does not fit the heads, the directions or the model around."""
        kernels = [k for k in find_kernels(tensors) if k.low_rank and not k.missing]
        wide = any(k.version > 0 and tensors[k.roles["C"]].shape[0] > 1 for k in kernels)
        inside = find_sequence_model(tensors, [k.name for k in kernels]) is not None
        return super().infer(tensors) | ({"form": "s4"} if wide or inside else {})

    def layers(self, tensors: Tensors, config: Config) -> tuple[Layer, ...]:
        """As the diagonal kernels', with the block's output map where S4D stores it in another shape."""
        found = super().layers(tensors, config)
        return tuple(with_output(layer, tensors) for layer in found) if config["form"] == "s4d" else found

    def system(self, layer: Layer, config: Config, read: Read) -> DiagonalSystem:
        """The diagonalised layer, the residues in C; padded where channels differ in their number of real poles."""
        from lastcli.engine.system import DiagonalSystem

        dt = steps_of(layer, config, read)
        if dt.shape[1] != 1:
            raise UnsupportedModelError(
                f"{layer.name}: {layer.tensors['dt']} gives every state a step of its own, which a low-rank kernel "
                "does not have; the tensors of two models may be mixed."
            )
        eigenvalues = poles_of(layer, config, read)
        B, C, P, Q = _krylov(layer, read) if is_krylov(layer.tensors["C"]) else _apart(layer, config, read)
        copies = max(len(eigenvalues), P.shape[1], Q.shape[1], len(B))
        own = np.arange(copies)
        # The limit is on the frequencies before the low-rank term, as the file has them.
        heard = audible(config, eigenvalues[np.arange(len(C)) % len(eigenvalues)], dt)
        C = np.where(heard[:, None, None], C, 0)
        a, residues = half_spectrum(
            eigenvalues[own % len(eigenvalues)],
            P[:, own % P.shape[1]],
            Q[:, own % Q.shape[1]],
            B[own % len(B)],
            C.transpose(1, 2, 0, 3),
            layer.name,
        )
        poles, gain = discrete(np, "bilinear", a[np.arange(len(C)) % copies], dt)
        # What the diagonal kernel will have as B, so that a reduced layer holds the same one.
        B = gain if config["form"] == "s4" else np.ones_like(gain)
        factor = gain / truncation_factor(poles, self._length(layer, config, read)) / B
        residues = residues.transpose(2, 0, 1, 3) * factor[:, None, None]
        if config["bidirectional"]:
            poles, B, residues = split_modes(poles, B, residues, layer.name)
        D = ms.feedthrough_of(read(layer.tensors["D"]) if "D" in layer.tensors else None, len(C))
        return DiagonalSystem(
            poles=poles,
            B=B[..., None],
            C=residues,
            D=D,
            pairing=2,
            modes=residues.shape[1],
            sets=len(C),
            feedthrough="none" if D is None else "dense",
            multi=True,
            fixed_poles=self.refuses_moved_poles(layer, config) is not None,
        )

    def rebuild(
        self, layer: Layer, config: Config, read: Read, reduction: Reduction, size: int
    ) -> dict[str, np.ndarray | None]:
        """The reduced layer in its diagonal form; there is nothing to gather, the file has no diagonal states."""
        self.check_moved_poles(layer, config, reduction)
        if config["form"] == "s4d":
            return s4d_layer(layer, reduction.system, self.step_sizes(layer, config, read), size, read)
        return _diagonal_kernel(layer, config, read, reduction.system, size)

    def rebuilt_config(self, config: Config) -> dict[str, Any]:
        """The family changes with the form."""
        if config["form"] == "s4d":
            return s4d_config(config)
        kept = {option.key: config[option.key] for option in (*S4_OPTIONS, *sequence_options(mask_padding=True))}
        return {**kept, "family": "s4", "discretization": "bilinear", "kernel_length": 0, "bandlimit": 0.0}

    def convert(
        self, tensors: Tensors, config: Config, read: Read, target: str
    ) -> tuple[dict[str, np.ndarray | None], dict[str, Any]]:
        """As `Convertible.convert`; "s4" writes the repository's diagonal kernel."""
        if target != "s4":
            return super().convert(tensors, config, read, target)
        config = {**config, "form": "s4"}
        changes: dict[str, np.ndarray | None] = {}
        for layer in self.layers(tensors, config):
            system = self.system(layer, config, read)
            changes |= _diagonal_kernel(layer, config, read, system, system.states)
        return changes, self.rebuilt_config(config)

    @staticmethod
    def _length(layer: Layer, config: Config, read: Read) -> int:
        if config["kernel_length"] >= 0:
            return config["kernel_length"]
        if "length" in layer.tensors:
            return int(read(layer.tensors["length"]))
        if "omega" in layer.tensors:
            # V1 keeps the nodes of a real FFT of even length L: L/2 + 1 of them.
            return 2 * (read(layer.tensors["omega"]).shape[0] - 1)
        return 0


def _apart(layer: Layer, config: Config, read: Read) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """B (S, N), C (H, R, heads, N), P and Q (rank, S, N) of versions 1 to 4, as `half_spectrum` takes them."""
    P = as_complex(read(layer.tensors["P"]))
    Q = as_complex(read(layer.tensors["Q"])) if "Q" in layer.tensors else P.conj()
    return as_complex(read(layer.tensors["B"])).reshape(-1, layer.states), read_outs(layer, config, read), P, Q


def _krylov(layer: Layer, read: Read) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The same of version 0: B = [B, P], C = [C, Q], and the kernel is made of the conjugates of C and Q."""
    B, C = as_complex(read(layer.tensors["B"])), as_complex(read(layer.tensors["C"])).conj()
    B = B.reshape(-1, *C.shape[1:])
    return B[:, 0], C[:, None, :1], B[:, 1:].transpose(1, 0, 2), C[:, 1:].transpose(1, 0, 2)


def _diagonal_prefix(layer: Layer) -> str:
    """Where the diagonal kernel lies: in the place of the low-rank one, which version 0 calls `krylov`."""
    prefix = split(layer.tensors["C"])[0]
    return re.sub(r"krylov([./])$", r"kernel\1", prefix) if is_krylov(layer.tensors["C"]) else prefix


def _diagonal_kernel(
    layer: Layer, config: Config, read: Read, system: DiagonalSystem, size: int
) -> dict[str, np.ndarray | None]:
    """The layer as a diagonal kernel of the S4 repository in the file's own version (V0 and V1 as V3), bilinear."""
    poles, B, C, D = unfold(system, layer)
    dt = steps_of(layer, config, read)
    a = continuous("bilinear", poles, dt)
    C = C * (B / discrete(np, "bilinear", a, dt)[1])[:, None, None]
    stored = {role: read(name) for role, name in layer.tensors.items() if role in ("B", "C", "D")}
    prefix = _diagonal_prefix(layer)
    real, imag = ("A_real", "A_imag") if imag_sign(layer) < 0 else ("inv_A_real", "A_imag")
    # V3's diagonal kernel adds the floor that its low-rank one does not.
    floor = relu_floor(Layer(layer.name, size, 1, {**layer.tensors, "real": prefix + real}))
    rate = parameter_of(-pad_states(a, size, -ms.INERT_DECAY).real, config["real_transform"], floor, "a decay rate")
    frequency = imag_sign(layer) * pad_states(a, size).imag
    if config["imag_transform"] != "none":
        raise UnsupportedModelError(
            f"{layer.name}: the diagonal kernel needs frequencies of both signs, which imag_transform="
            f"{config['imag_transform']} cannot hold; use form=s4d."
        )
    ones = pad_states(np.ones_like(a), size)
    changes: dict[str, np.ndarray | None] = {
        name: None for role, name in layer.tensors.items() if role in (*_LOW_RANK, "real", "imag")
    }
    # V3's diagonal kernel keeps B without the leading axis that its low-rank one has.
    ones = ones[None] if imag_sign(layer) < 0 else ones
    if is_krylov(layer.tensors["C"]):
        log_dt = layer.tensors["dt"]
        changes |= {layer.tensors["B"]: None, layer.tensors["C"]: None, log_dt: None, f"{prefix}log_dt": read(log_dt)}
    changes |= {
        prefix + real: store(rate, stored["C"].real, prefix + real),
        prefix + imag: store(frequency, stored["C"].real, prefix + imag),
        prefix + "B": store(ones, stored["B"], prefix + "B"),
        prefix + "C": store_read_outs(layer, pad_states(C, size), stored["C"]),
    }
    if D is not None:
        changes[layer.tensors["D"]] = ms.store_feedthrough(D[..., None], stored["D"], layer.tensors["D"])
    return changes
