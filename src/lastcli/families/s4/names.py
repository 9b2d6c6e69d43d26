"""How the S4 repository spells a kernel's tensors, version by version, brought to one set of roles.

| version | poles | step | prefix | sign of the imaginary part |
|---|---|---|---|---|
| V4 | `A_real`, `A_imag` | `inv_dt` | `kernel.` | A = -f(A_real) - i·g(A_imag) |
| V3, V2 | `inv_w_real`, `log_w_real`, `inv_A_real`; `w_imag`, `A_imag` | `log_dt` | `kernel.kernel.` | + |
| V1 | `w` complex | `log_dt` | `kernel.kernel.` | + |
| V0 | `w` complex | `log_dt` | `kernel.krylov.` | + |

`P` (and `Q` in V1) marks the diagonal-plus-low-rank kernel; `l_kernel` (V4) or `L` is the length that its C was
transformed for, in V1 told by the length of `omega`. V3's diagonal kernel also holds the poles that it started from,
`A` (S, N, 2), which no forward pass reads (role "idle A"). V0 keeps the low-rank factors as further rows of B and C,
B = [B, P] and C = [C, Q] (H, 1 + rank, N, 2), reads C and Q conjugated, and tells its length by `nodes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lastcli.containers.base import TensorInfo
from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Layer, Option, Read, Tensors
from lastcli.families.parts import multi_siso as ms
from lastcli.families.parts.leaves import canonical, expect_shape, groups
from lastcli.families.parts.storage import as_complex

__all__ = [
    "S4_OPTIONS",
    "Kernel",
    "audible",
    "check_shapes",
    "find_kernels",
    "imag_sign",
    "is_krylov",
    "masks_padding",
    "parameter_of",
    "poles_of",
    "proves_bidirectional",
    "relu_floor",
    "steps_of",
]

S4_OPTIONS = (
    Option("dt_transform", str, "exp", "step from its parameter", ms.TRANSFORMS),
    Option("dt_fast", bool, False, "the step's parameter goes through sinh first"),
    Option("real_transform", str, "exp", "decay rate from its parameter", ms.TRANSFORMS),
    Option("imag_transform", str, "none", "frequency from its parameter", ms.TRANSFORMS),
    Option("bidirectional", bool, False, "half of the read-outs look ahead"),
    Option("bandlimit", float, 0.0, "states faster than half of this, in cycles a step, are silent; 0: no limit"),
)

# Added to a parameter that goes through relu, in V4 and in V3's diagonal kernel.
_FLOOR = 1e-4

# role → leaf names, the first found counts.
_LEAVES = {
    "C": ("C",),
    "dt": ("inv_dt", "log_dt"),
    "real": ("A_real", "inv_w_real", "log_w_real", "inv_A_real", "log_A_real"),
    "imag": ("A_imag", "w_imag"),
    "w": ("w",),
    "B": ("B",),
    "P": ("P",),
    "Q": ("Q",),
    "length": ("l_kernel", "L"),
    "omega": ("omega", "nodes"),
    "z": ("z",),
    "idle A": ("A",),
}
_OLD_POLES = ("inv_w_real", "log_w_real", "inv_A_real")


@dataclass(frozen=True)
class Kernel:
    """The tensors of one kernel.

    Attributes:
        prefix: what all their names start with.
        version: 4, 3 (and 2), 1 or 0.
        roles: role → tensor name, D included.
        missing: leaves that it lacks.
    """

    prefix: str
    version: int
    roles: Mapping[str, str]
    missing: tuple[str, ...]

    @property
    def low_rank(self) -> bool:
        """Whether a low-rank term couples the states."""
        return "P" in self.roles or self.version == 0

    @property
    def name(self) -> str:
        """The layer that owns the kernel."""
        return ms.layer_of(self.prefix)


def find_kernels(tensors: Tensors) -> list[Kernel]:
    """Every kernel of the S4 repository, complete or not, in running order."""
    found = []
    for prefix, leaves in groups(tensors).items():
        version = _version(prefix, leaves, tensors)
        if version is None:
            continue
        roles = {
            role: next(leaves[n] for n in names if n in leaves)
            for role, names in _LEAVES.items()
            if any(n in leaves for n in names)
        }
        if version > 1:
            roles = {role: name for role, name in roles.items() if role not in ("w", "Q")}
        if version != 3 or "P" in roles:
            roles.pop("idle A", None)
        D = next((name for name in (ms.owner(prefix) + "D", prefix + "D") if name in tensors), None)
        if D is not None:
            roles["D"] = D
        found.append(Kernel(prefix, version, roles, _missing(version, roles, tensors)))
    return found


def is_krylov(name: str) -> bool:
    """Whether a tensor lies in a kernel of version 0."""
    return canonical(name).split("/")[-2:-1] == ["krylov"]


def _version(prefix: str, leaves: Mapping[str, str], tensors: Tensors) -> int | None:
    """The version whose own names are there, or None."""
    if is_krylov(f"{prefix}C"):
        return 0 if "w" in leaves else None
    if "inv_dt" in leaves or ("A_real" in leaves and "A_imag" in leaves):
        return 4
    if any(leaf in leaves for leaf in _OLD_POLES):
        return 3
    heads = "C" in leaves and len(tensors[leaves["C"]].shape) == 4
    if "log_A_real" in leaves and ("B" in leaves or "P" in leaves or heads):
        return 3
    return 1 if {"w", "log_dt", "C"} <= leaves.keys() and heads else None


def _missing(version: int, roles: Mapping[str, str], tensors: Tensors) -> tuple[str, ...]:
    wanted = ["C", "dt", *{4: ("real", "B"), 3: ("real", "imag"), 1: ("w", "B"), 0: ("w", "B")}[version]]
    if version == 4 and not _real_valued(roles, tensors):
        wanted.append("imag")
    if "P" in roles:
        wanted.append("B")
    names = {"dt": "inv_dt" if version == 4 else "log_dt", "real": "A_real" if version == 4 else "inv_w_real"}
    names["imag"] = "A_imag" if version == 4 else "w_imag"
    return tuple(names.get(role, role) for role in dict.fromkeys(wanted) if role not in roles)


def _real_valued(roles: Mapping[str, str], tensors: Tensors) -> bool:
    """V4's `is_real` kernels have no imaginary part, and no (real, imaginary) axis in C either."""
    if "P" in roles or "C" not in roles:
        return False
    C = tensors[roles["C"]]
    return len(C.shape) == 3 and not C.dtype.startswith("complex")


def check_shapes(kernel: Kernel, tensors: Tensors) -> tuple[int, int, int, int]:
    """(H, N, S, read-outs): channels, stored states, independent copies of the poles, rows of C.

    Raises:
        UnsupportedModelError: a tensor's shape contradicts the others; names it.
    """
    info = {role: tensors[name] for role, name in kernel.roles.items()}
    if kernel.version == 0:
        return _check_krylov(info)
    if kernel.version == 1:
        poles = info["w"].shape[:-1] if not info["w"].dtype.startswith("complex") else info["w"].shape
        S, N = poles if len(poles) == 2 else (1, poles[0])
    else:
        S, N = ms.two_axes(info["real"])
    pair = () if info["C"].dtype.startswith("complex") or _is_real(info) else (2,)
    rows, H = info["C"].shape[:2] if len(info["C"].shape) == 3 + len(pair) else (1, S)
    if H % S:
        raise UnsupportedModelError(
            f"Tensor {kernel.roles['C']} has {H} channels, which {S} independent state matrices cannot share evenly."
        )
    expect_shape(info["C"], (rows, H, N, *pair))
    if "imag" in info:
        expect_shape(info["imag"], (S, N))
    expect_shape(info["dt"], (H,), (H, 1), (H, N))
    if "B" in info:
        expect_shape(info["B"], (1, S, N, *pair), (S, N, *pair), (1, H, N, *pair))
    if "idle A" in info:
        expect_shape(info["idle A"], (S, N, 2), (S, N))
    for role in ("P", "Q"):
        if role in info:
            expect_shape(info[role], (info[role].shape[0], S, N, *pair), (info[role].shape[0], H, N, *pair))
    if "D" in info:
        expect_shape(info["D"], (rows, H), (rows // 2, H), *([(H,)] if rows <= 2 else []))
    return H, N, S, rows


def _check_krylov(info: Mapping[str, TensorInfo]) -> tuple[int, int, int, int]:
    """`check_shapes` of version 0: B and C have a row of their own and one for each rank of the low-rank term."""
    pair = () if info["C"].dtype.startswith("complex") else (2,)
    C = info["C"].shape
    if len(C) != 3 + len(pair) or C[1] < 2 or 0 in C:
        raise UnsupportedModelError(
            f"Tensor {info['C'].name} has shape {tuple(C)}; a kernel of S4's version 0 needs (channels, 1 + rank, "
            "states) complex numbers."
        )
    H, rows, N = C[:3]
    expect_shape(info["C"], (H, rows, N, *pair))
    expect_shape(info["B"], (H, rows, N, *pair), (rows, N, *pair), (1, rows, N, *pair))
    expect_shape(info["w"], (H, N, *pair), (N, *pair), (1, N, *pair))
    expect_shape(info["dt"], (H,), (H, 1))
    if "D" in info:
        expect_shape(info["D"], (H,), (1, H))
    return H, N, H, 1


def _is_real(info: Mapping[str, TensorInfo]) -> bool:
    return "imag" not in info and "w" not in info


def proves_bidirectional(kernel: Kernel, tensors: Tensors) -> bool | None:
    """Whether C has twice the rows of D; None where there is no D. Version 0 knows one direction."""
    if kernel.version == 0:
        return False
    if "D" not in kernel.roles or "C" not in kernel.roles:
        return None
    D = tensors[kernel.roles["D"]].shape
    rows = D[0] if len(D) == 2 else 1
    return tensors[kernel.roles["C"]].shape[0] == 2 * rows


def masks_padding(kernel: Kernel) -> bool | None:
    """Whether the layers of the kernel's version set padded steps to zero; None for V3, where that changed."""
    if kernel.version == 3 and not kernel.roles["real"].rpartition(".")[2].startswith("log_"):
        return None
    return kernel.version == 4


def poles_of(layer: Layer, config: Config, read: Read) -> np.ndarray:
    """Continuous poles (S, N) of the stored half, complex128, with the sign of the layer's version."""
    roles = layer.tensors
    if "w" in roles:
        w = as_complex(read(roles["w"]))
        return w if w.ndim == 2 else w[None]
    real = _positive(read(roles["real"]), config["real_transform"], relu_floor(layer))
    if "imag" not in roles:
        return -real + 0j
    imag = _positive(read(roles["imag"]), config["imag_transform"], relu_floor(layer))
    return -real + imag_sign(layer) * 1j * imag


def relu_floor(layer: Layer) -> float:
    """What the layer's version adds to a parameter that goes through relu; V3's low-rank kernel adds nothing."""
    diagonal = layer.tensors.get("real", "").endswith("inv_A_real")
    return _FLOOR if diagonal or imag_sign(layer) < 0 else 0.0


def _positive(stored: np.ndarray, kind: str, floor: float) -> np.ndarray:
    return ms.transform(stored, kind) + (floor if kind == "relu" else 0.0)


def parameter_of(values: np.ndarray, kind: str, floor: float, what: str = "a parameter") -> np.ndarray:
    """The stored parameter of a positive quantity; `floor` as `relu_floor` has it.

    Raises:
        UnsupportedModelError: the transform cannot produce the value.
    """
    if kind != "relu" or floor == 0:
        return ms.inverse_transform(values, kind, what)
    if values.min(initial=np.inf) < 0.999 * floor:
        raise UnsupportedModelError(
            f"The reduced layer needs {what} of {float(values.min()):.3g}, but a relu parameter of its version adds "
            f"{floor:g}; use a method that keeps the poles, or convert the model to s4d first."
        )
    return ms.inverse_transform(values - floor, kind, what)


def audible(config: Config, a: np.ndarray, dt: np.ndarray) -> np.ndarray:
    """(H, N): whether the kernel lets a state of continuous poles `a` (H, N) through, for steps (H, 1) or (H, N).

    With a `bandlimit` b, the published kernels set C to zero where Δ·|Im a|/2π, the frequency in cycles a step,
    reaches b/2 (S4ND, arXiv 2210.06583).
    """
    if config["bandlimit"] <= 0:
        return np.ones(np.broadcast_shapes(a.shape, dt.shape), bool)
    return dt * np.abs(a.imag) / (2 * np.pi) < config["bandlimit"] / 2


def imag_sign(layer: Layer) -> int:
    """V4 stores the imaginary part negated: told by the leaf that holds the step."""
    return -1 if layer.tensors["dt"].endswith("inv_dt") else 1


def steps_of(layer: Layer, config: Config, read: Read) -> np.ndarray:
    """Step sizes (H, 1) or (H, N), float64."""
    stored = read(layer.tensors["dt"]).astype(np.float64)
    stored = np.sinh(stored) if config["dt_fast"] else stored
    return _positive(stored, config["dt_transform"], relu_floor(layer)).reshape(stored.shape[0], -1)
