"""What the S4 repository's kernels compute, from the definitions: dense matrices, powers, a dense resolvent."""

from __future__ import annotations

import numpy as np

from tests.builders.s4 import Numbers


def hold(rule: str, a: np.ndarray, dt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Discrete poles and input gains of a diagonal kernel."""
    if rule == "bilinear":
        return (1 + a * dt / 2) / (1 - a * dt / 2), dt / (1 - a * dt / 2)
    return np.exp(a * dt), (np.exp(a * dt) - 1) / a


def diagonal_kernel(k: Numbers, rule: str, length: int, B: np.ndarray | None = None) -> np.ndarray:
    """K (rows, H, L) of a diagonal kernel, 2·Re Σ C Ā^k B̄."""
    H = k.C.shape[1]
    copies = np.arange(H) % len(k.A)
    poles, gain = hold(rule, k.A[copies], k.dt)
    drive = gain * (k.B if B is None else B)[copies]
    powers = poles[..., None] ** np.arange(length)
    return 2 * np.einsum("rhn,hn,hnl->rhl", k.C, drive, powers).real


def softmax_kernel(k: Numbers, length: int) -> np.ndarray:
    """K (rows, H, L) of the dss rule, Re Σ C B / A · softmax over the L steps of exp(k·A·dt): no factor 2."""
    copies = np.arange(k.C.shape[1]) % len(k.A)
    powers = np.exp((k.A[copies] * k.dt)[..., None] * np.arange(length))
    softmax = powers / powers.sum(-1, keepdims=True)
    return np.einsum("rhn,hnl->rhl", k.C * (k.B / k.A)[copies], softmax).real


def dense_kernel(k: Numbers, length: int, Q: np.ndarray | None = None) -> np.ndarray:
    """K (rows, H, L) of a low-rank kernel with untransformed C, by powers of the dense bilinear Ā over conjugates."""
    rows, H, N = k.C.shape
    out = np.zeros((rows, H, length))
    for h in range(H):
        A, B, C = dense(k, h, Q)
        half, eye = k.dt[h, 0] / 2 * A, np.eye(2 * N)
        step, x = np.linalg.solve(eye - half, eye + half), np.linalg.solve(eye - half, k.dt[h, 0] * B)
        for j in range(length):
            out[:, h, j] = (C @ x).real
            x = step @ x
    return out


def dense(k: Numbers, h: int, Q: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A (2N, 2N), B (2N,), C (rows, 2N) of one channel, conjugates written out."""
    s = h % len(k.A)
    Q = k.P.conj() if Q is None else Q

    def full(v: np.ndarray) -> np.ndarray:
        return np.concatenate([v, v.conj()], axis=-1)

    A = np.diag(full(k.A[s])) - full(k.P[:, s]).T @ full(Q[:, s])
    return A, full(k.B[s]), full(k.C[:, h])


def transformed(k: Numbers, length: int, Q: np.ndarray | None = None) -> np.ndarray:
    """The C that the repository stores after its first run: the stored half of C (I - Ā^L)."""
    out = np.zeros_like(k.C)
    N = k.C.shape[2]
    for h in range(k.C.shape[1]):
        A, _, C = dense(k, h, Q)
        half, eye = k.dt[h, 0] / 2 * A, np.eye(2 * N)
        step = np.linalg.solve(eye - half, eye + half)
        out[:, h] = (C @ (eye - np.linalg.matrix_power(step, length)))[:, :N]
    return out


def resolvent_kernel(k: Numbers, length: int) -> np.ndarray:
    """K (rows, H, L) from the stored, transformed C by one inverse FFT of its generating function, as published."""
    rows, H, N = k.C.shape
    omega = np.exp(-2j * np.pi / length * np.arange(length // 2 + 1))
    spectrum = np.zeros((rows, H, len(omega)), complex)
    for h in range(H):
        A, B, C = dense(k, h)
        dt, eye = k.dt[h, 0], np.eye(2 * N)
        for j, w in enumerate(omega):
            spectrum[:, h, j] = C @ np.linalg.solve((2 * eye - dt * A) - w * (2 * eye + dt * A), 2 * dt * B)
    return np.fft.irfft(spectrum, n=length)


def convolve(K: np.ndarray, D: np.ndarray, u: np.ndarray, both: bool = False) -> np.ndarray:
    """y (L, heads·H) of u (L, H) by the published convolution; the backward kernel starts one step ahead."""
    length = len(u)
    forward = K[: len(K) // 2] if both else K
    backward = K[len(K) // 2 :] if both else np.zeros_like(K)
    y = D[:, None, :] * u[None]
    for k in range(length):
        for j in range(length):
            if j <= k:
                y[:, k] += forward[:, :, k - j] * u[j]
            else:
                y[:, k] += backward[:, :, j - k - 1] * u[j]
    return y.transpose(1, 0, 2).reshape(length, -1)
