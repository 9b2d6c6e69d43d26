"""Tiny checkpoints of the S4 repository: one kernel's numbers, spelled as versions 0 to 4 store them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.builders.named import Arrays
from tests.builders.s4d import dense, norm


@dataclass(frozen=True)
class Numbers:
    """A kernel in continuous time: H channels, N stored states, S copies of the poles, rows of C."""

    A: np.ndarray  # (S, N), real parts negative
    B: np.ndarray  # (S, N)
    C: np.ndarray  # (rows, H, N)
    P: np.ndarray  # (rank, S, N)
    dt: np.ndarray  # (H, 1), or (H, N)
    D: np.ndarray  # (heads, H)


def numbers(
    rng: np.random.Generator,
    H: int = 4,
    N: int = 3,
    S: int | None = None,
    heads: int = 1,
    both: bool = False,
    rank: int = 1,
    dt_tie: bool = True,
) -> Numbers:
    S = H if S is None else S

    def gauss(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype("c8").astype(complex)

    imag = np.pi * np.arange(N) + rng.uniform(0.1, 0.5, (S, N))
    return Numbers(
        A=-np.float32(rng.uniform(0.2, 0.9, (S, N))) + 1j * np.float32(imag),
        B=gauss(S, N),
        C=gauss(heads * (2 if both else 1), H, N),
        P=0.7 * gauss(rank, S, N),
        dt=np.float32(rng.uniform(0.05, 0.4, (H, 1 if dt_tie else N))).astype(float),
        D=np.float32(rng.normal(size=(heads, H))).astype(float),
    )


def hippo(rng: np.random.Generator, H: int = 4, N: int = 8) -> Numbers:
    """HiPPO-LegS as S4 starts from it, the stored half of its normal plus low-rank form (arXiv 2111.00396, appendix C).

    The matrix is triangular with the real eigenvalues -1 ... -2N, whose eigenvectors are nearly dependent.
    """
    n = np.arange(2 * N)
    scale = np.sqrt(2 * n + 1)
    A = -np.tril(np.outer(scale, scale), -1) - np.diag(n + 1)
    P = scale / np.sqrt(2)
    frequencies, V = np.linalg.eigh(-1j * (A + np.outer(P, P) + np.eye(2 * N) / 2))
    half = frequencies > 0
    w = (-0.5 + 1j * frequencies[half]).astype("c8").astype(complex)
    B, P = ((V.conj().T @ v)[half].astype("c8").astype(complex) for v in (scale, P))
    C = (rng.normal(size=(1, H, N)) + 1j * rng.normal(size=(1, H, N))).astype("c8").astype(complex)
    dt = np.float32(np.exp(rng.uniform(np.log(0.02), np.log(0.1), (H, 1)))).astype(float)
    return Numbers(w[None], B[None], C, P[None, None], dt, np.float32(rng.normal(size=(1, H))).astype(float))


def pairs(values: np.ndarray) -> np.ndarray:
    return np.stack([values.real, values.imag], axis=-1).astype("f4")


INVERSES = {
    "exp": np.log,
    "softplus": lambda v: np.log(np.expm1(v)),
    "none": lambda v: v,
    "relu": lambda v: v - 1e-4,
    "sigmoid": lambda v: np.log(v / (1 - v)),
}


def v4(
    k: Numbers,
    length: int | None = None,
    dt_transform: str = "exp",
    real_transform: str = "exp",
    imag_transform: str = "none",
    dt_fast: bool = False,
) -> Arrays:
    """Version 4; with `length` the low-rank kernel. Its imaginary parts are stored negated: A = -f - i·g."""
    dt = INVERSES[dt_transform](k.dt)
    arrays = {
        "kernel.C": pairs(k.C),
        "kernel.B": pairs(k.B)[None],
        "kernel.inv_dt": (np.arcsinh(dt) if dt_fast else dt).astype("f4"),
        "kernel.A_real": INVERSES[real_transform](-k.A.real).astype("f4"),
        "kernel.A_imag": INVERSES[imag_transform](-k.A.imag).astype("f4"),
        "D": k.D.astype("f4"),
    }
    if length is not None:
        arrays |= {"kernel.P": pairs(k.P), "kernel.l_kernel": np.array(length)}
    return arrays


def v3(
    k: Numbers,
    length: int | None = None,
    poles: str = "inv",
    flat_dt: bool = False,
    real_transform: str = "exp",
    idle: bool = False,
) -> Arrays:
    """Versions 3 ("inv") and 2 ("log"); diagonal kernels name their poles A, low-rank ones w, without relu's offset."""
    letter = "A" if length is None else "w"
    inverse = INVERSES["none" if real_transform == "relu" and letter == "w" else real_transform]
    dt = np.log(k.dt).astype("f4")
    arrays = {
        "kernel.kernel.C": pairs(k.C),
        "kernel.kernel.B": pairs(k.B) if length is None else pairs(k.B)[None],
        "kernel.kernel.log_dt": dt[:, 0] if flat_dt else dt,
        f"kernel.kernel.{poles}_{letter}_real": inverse(-k.A.real).astype("f4"),
        f"kernel.kernel.{letter}_imag": k.A.imag.astype("f4"),
        "D": k.D.astype("f4"),
    }
    if idle:
        # What V3's diagonal kernel registers beside its poles and never reads: here nothing like them.
        arrays["kernel.kernel.A"] = pairs(3 + 0 * k.A + 1j * np.arange(k.A.size).reshape(k.A.shape))
    if length is not None:
        arrays |= {"kernel.kernel.P": pairs(k.P), "kernel.kernel.L": np.array(length)}
    return arrays


def v2_diagonal(k: Numbers) -> Arrays:
    """The first S4D inside the repository: no B (it is folded into C), poles called w."""
    return {
        "kernel.kernel.C": pairs(k.C),
        "kernel.kernel.log_dt": np.log(k.dt[:, 0]).astype("f4"),
        "kernel.kernel.log_w_real": np.log(-k.A.real).astype("f4"),
        "kernel.kernel.w_imag": k.A.imag.astype("f4"),
        "D": k.D.astype("f4"),
    }


def v1(k: Numbers, Q: np.ndarray, length: int) -> Arrays:
    """Version 1: w as it is, a Q of its own, and the FFT nodes, which tell the length."""
    omega = np.exp(-2j * np.pi / length * np.arange(length // 2 + 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = 2 * (1 - omega) / (1 + omega)
    return {
        "kernel.kernel.C": pairs(k.C),
        "kernel.kernel.B": pairs(k.B)[None],
        "kernel.kernel.P": pairs(k.P),
        "kernel.kernel.Q": pairs(Q),
        "kernel.kernel.w": pairs(k.A),
        "kernel.kernel.log_dt": np.log(k.dt[:, 0]).astype("f4"),
        "kernel.kernel.omega": pairs(omega),
        "kernel.kernel.z": pairs(np.where(np.isfinite(z), z, 0)),
        "D": k.D.astype("f4"),
    }


def v0(k: Numbers, Q: np.ndarray, length: int) -> Arrays:
    """Version 0: the low-rank factors are further rows of B and C, and both C and Q are stored conjugated.

    With one copy of the poles w and B have no channel axis; C always has one, and with it Q.
    """
    rows = np.broadcast_to(Q, (len(k.P), *k.C.shape[1:]))
    nodes = np.exp(-2j * np.pi / length * np.arange(length // 2 + 1))
    return {
        "kernel.krylov.C": pairs(np.stack([k.C[0], *rows], axis=1).conj()),
        "kernel.krylov.B": pairs(np.stack([k.B, *k.P], axis=1)[slice(None) if len(k.A) > 1 else 0]),
        "kernel.krylov.w": pairs(k.A[slice(None) if len(k.A) > 1 else 0]),
        "kernel.krylov.log_dt": np.log(k.dt[:, 0]).astype("f4"),
        "kernel.krylov.nodes": pairs(nodes),
        "kernel.krylov.z": pairs(np.zeros_like(nodes)),
        "D": k.D[0].astype("f4"),
    }


def prefixed(arrays: Arrays, prefix: str) -> Arrays:
    return {f"{prefix}{name}": a for name, a in arrays.items()}


def example_model(
    rng: np.random.Generator, kernels: list[Arrays], H: int, heads: int = 1, level: str = "layer."
) -> Arrays:
    """The repository's example model around the kernels; `level` is what V4 puts between block and kernel."""
    arrays = dense(rng, "encoder", H, 1)
    for i, kernel in enumerate(kernels):
        arrays |= prefixed(kernel, f"s4_layers.{i}.{level}")
        arrays |= dense(rng, f"s4_layers.{i}.output_linear.0", 2 * H, heads * H)
        arrays |= norm(rng, f"norms.{i}", H)
    return arrays | dense(rng, "decoder", 3, H)
