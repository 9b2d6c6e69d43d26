"""One layer of every project as it is defined, read from the stored tensors alone: u (L, inputs) → y (L, outputs).

Written from the papers and the layers' definitions, in float64, one state and one step at a time or by a plain sum over
the steps; nothing is shared with the package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Stored = Mapping[str, np.ndarray]
Config = Mapping[str, Any]


def pair(array: np.ndarray) -> np.ndarray:
    """Complex numbers from a native complex array or one with a last axis of two."""
    return array.astype(complex) if array.dtype.kind == "c" else array[..., 0].astype(float) + 1j * array[..., 1]


def causal(K: np.ndarray, D: np.ndarray, u: np.ndarray) -> np.ndarray:
    """(L, heads·H) of kernels (heads, H, L), D (heads, H) and u (L, H), every product written out."""
    y = D[:, None] * u[None]
    for k in range(len(u)):
        for j in range(k + 1):
            y[:, k] += K[:, :, k - j] * u[j]
    return y.transpose(1, 0, 2).reshape(len(u), -1)


def both_ways(K: np.ndarray, D: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The same where the second half of the kernels looks ahead, beginning with the next step."""
    y = causal(K[: len(K) // 2], D, u).reshape(len(u), *D.shape).transpose(1, 0, 2)
    for k in range(len(u)):
        for j in range(k + 1, len(u)):
            y[:, k] += K[len(K) // 2 :, :, j - k - 1] * u[j]
    return y.transpose(1, 0, 2).reshape(len(u), -1)


def scan(poles: np.ndarray, drive: np.ndarray, C: np.ndarray, *, before: bool = False) -> np.ndarray:
    """Re(C x) of x[k] = λ x[k-1] + drive[k]; with `before` the output reads the state that the step finds."""
    x, y = np.zeros(len(poles), complex), []
    for step in drive:
        after = poles * x + step
        y.append((C @ (x if before else after)).real)
        x = after
    return np.array(y)


def s5_pytorch(t: Stored, config: Config, u: np.ndarray) -> np.ndarray:
    a, step = t["Lambda"].astype(complex), np.exp(t["log_step"].astype(float)).reshape(-1)
    if config["discretization"] == "bilinear":
        poles, gain = (1 + a * step / 2) / (1 - a * step / 2), step / (1 - a * step / 2)
    else:
        poles, gain = np.exp(a * step), (np.exp(a * step) - 1) / a
    drive, C = u @ (gain[:, None] * pair(t["B"])).T, pair(t["C"])
    y = scan(poles, drive, C[:, : len(a)])
    if C.shape[1] == 2 * len(a):
        y = y + scan(poles, drive[::-1], C[:, len(a) :])[::-1]
    return y + t["D"] * u


def event_ssm(t: Stored, config: Config, u: np.ndarray) -> np.ndarray:
    """For events one unit of time apart."""
    a, step = t["Lambda_re"].astype(float) + 1j * t["Lambda_im"], np.exp(t["log_step"].astype(float))[:, 0]
    gain = np.ones(len(a)) if config["discretization"] == "dirac" else (np.exp(a * step) - 1) / a
    direct = t["D"].astype(float)
    direct = np.diag(direct) if direct.ndim == 1 else direct
    y = scan(np.exp(a * step), u @ (gain[:, None] * pair(t["B"])).T, pair(t["C"]))
    return (2 if config["conj_sym"] else 1) * y + u @ direct.T


def lru(t: Stored, config: Config, u: np.ndarray) -> np.ndarray:
    poles = np.exp(-np.exp(t["nu_log"].astype(float)) + 1j * np.exp(t["theta_log"].astype(float)))
    B, C = (t[f"{x}_re"].astype(float) + 1j * t[f"{x}_im"] if f"{x}_re" in t else None for x in "BC")
    B, C = pair(t["Bp" if "Bp" in t else "B"]) if B is None else B, pair(t["C"]) if C is None else C
    D = np.diag(t["D"]) if t["D"].ndim == 1 else t["D"]
    drive = u @ (np.exp(t["gamma_log"].astype(float))[:, None] * B).T
    return scan(poles, drive, C, before="Bp" in t) + u @ D.astype(float).T


def linoss(t: Stored, config: Config, u: np.ndarray) -> np.ndarray:
    """z' = -A x + B u, x' = z: implicit steps, or x with the new z and z with the old x."""
    A, step = np.maximum(t["A_diag"].astype(float), 0), 1 / (1 + np.exp(-t["steps"].astype(float)))
    drive, x, z, y = u @ pair(t["B"]).T, 0j * A, 0j * A, []
    for push in drive:
        if config["discretization"] == "IM":
            z = (z + step * (push - A * x)) / (1 + step**2 * A)
        else:
            z = z + step * (push - A * x)
        x = x + step * z
        y.append((pair(t["C"]) @ x).real)
    return np.array(y) + t["D"] * u


def s4d(t: Stored, config: Config, u: np.ndarray) -> np.ndarray:
    a, dt = -np.exp(t["log_A_real"].astype(float)) + 1j * t["A_imag"], np.exp(t["log_dt"].astype(float)).reshape(-1, 1)
    powers = np.exp((a * dt)[..., None] * np.arange(len(u)))
    K = 2 * np.einsum("hn,hnl->hl", pair(t["C"]) * (np.exp(a * dt) - 1) / a, powers).real
    return causal(K[None], t["D"].astype(float).reshape(1, -1), u)


def dss(t: Stored, config: Config, u: np.ndarray) -> np.ndarray:
    """Softmax over all steps where Lambda is stored as it is; the zero-order hold where its logarithms are."""
    if "Lambda" in t:
        a = pair(t["Lambda"])
    else:
        imag = np.exp(t["Lambda_log_im"].astype(float)) if "Lambda_log_im" in t else t["Lambda_im"].astype(float)
        a = -np.exp(t["Lambda_log_neg_re"].astype(float)) + 1j * imag
    steps = np.exp(t["log_dt"].astype(float)).reshape(len(t["log_dt"]), -1)
    dta = steps[:, :1] * a.real + 1j * steps[:, -1:] * a.imag
    powers = np.exp(dta[..., None] * np.arange(4000 if "Lambda" in t else len(u)))
    if "Lambda" in t:
        weights = powers / powers.sum(-1, keepdims=True) / a[:, None]
    else:
        weights = powers * ((np.exp(dta) - 1) / a)[..., None]
    K = np.einsum("rhn,hnl->rhl", pair(t["W"]), weights[..., : len(u)]).real
    D = t["D"].astype(float).reshape(-1, K.shape[1])
    return (both_ways if len(K) == 2 * len(D) else causal)(K, D, u)


def annotated(t: Stored, config: Config, u: np.ndarray) -> np.ndarray:
    """The three layers of the annotated S4, told apart by their tensors."""
    step, steps = np.exp(t["log_step"].astype(float)), np.arange(len(u))[:, None, None]
    if "A_re" in t:
        a = np.minimum(t["A_re"].astype(float), -1e-4) + 1j * t["A_im"]
        C = pair(t["C"]) * ((t["B_re"] + 1j * t["B_im"]) if config["use_b"] else 1)
        K = (C * (np.exp(a * step) - 1) / a * np.exp(steps * a * step)).sum(1).real
    elif "W" in t:
        a = t["Lambda_re"].astype(float) + 1j * t["Lambda_im"]
        rows = np.exp(np.arange(config["kernel_length"] or 4000)[:, None, None] * a * step)
        K = (pair(t["W"])[0].T * rows[: len(u)] / rows.sum(0) / a).sum(1).real
    else:
        K = np.stack([_annotated_s4(t, config, h, len(u)) for h in range(step.shape[1])], axis=1)
    return causal(K.T[None], t["D"].astype(float), u)


def complex_s4d(t: Stored, config: Config, u: np.ndarray) -> np.ndarray:
    """Re Σ C B g exp(k·A·dt), of which `conj_sym` takes twice; one sum over the states a step."""
    dt, C = np.exp(t["log_dt"].astype(float)).reshape(-1, 1), pair(t["C"])
    A = np.broadcast_to(pair(t["A"]), C.shape)
    if config["discretization"] == "bilinear":
        poles, gain = (1 + A * dt / 2) / (1 - A * dt / 2), dt / (1 - A * dt / 2)
    else:
        poles, gain = np.exp(A * dt), (np.exp(A * dt) - 1) / A
    C = C * gain * (pair(t["B"]) if "B" in t else 1)
    K = np.stack([(C * poles**k).sum(1).real for k in range(len(u))], axis=1)
    return causal((2 if config["conj_sym"] else 1) * K[None], t["D"].astype(float)[None], u)


def attenuate(t: Stored, config: Config, u: np.ndarray) -> np.ndarray:
    """y = Σ_n C_n Σ_j exp(-(k-j)·dt·softplus(A_n0)) cos((k-j)·dt·A_n1) · dt·B_n u[j]: cosines, no complex numbers."""
    dt = np.exp(t["log_dt"].astype(float))
    decay, frequency = dt * np.log1p(np.exp(t["A"][:, 0].astype(float))), dt * t["A"][:, 1].astype(float)
    k = np.arange(len(u))[:, None]
    basis = np.exp(-decay * k) * np.cos(frequency * k)
    drive, y = u @ (dt[:, None] * t["B"].astype(float)).T, []
    for step in range(len(u)):
        y.append(t["C"].astype(float) @ (basis[: step + 1][::-1] * drive[: step + 1]).sum(0))
    return np.array(y)


def _annotated_s4(t: Stored, config: Config, h: int, length: int) -> np.ndarray:
    a = np.minimum(t["Lambda_re"][:, h].astype(float), -1e-4) + 1j * t["Lambda_im"][:, h]
    P, B, eye = t["P"][:, h].astype(complex), t["B"][:, h].astype(complex), np.eye(len(a))
    half = np.exp(float(t["log_step"][0, h])) / 2 * (np.diag(a) - np.outer(P, P.conj()))
    step, x = (
        np.linalg.solve(eye - half, eye + half),
        np.linalg.solve(eye - half, np.exp(float(t["log_step"][0, h])) * B),
    )
    stored = pair(t["C"][:, h]).conj()
    C, K = np.linalg.solve((eye - np.linalg.matrix_power(step, config["kernel_length"])).T, stored), []
    for _ in range(length):
        K.append((C @ x).real)
        x = step @ x
    return np.array(K)


DEFINED: dict[str, Callable[[Stored, Config, np.ndarray], np.ndarray]] = {
    "s5_pytorch": s5_pytorch,
    "event_ssm": event_ssm,
    "lru": lru,
    "linoss": linoss,
    "s4d": s4d,
    "dss": dss,
    "annotated_s4d": annotated,
    "annotated_dss": annotated,
    "annotated_s4": annotated,
    "complex_s4d": complex_s4d,
    "attenuate": attenuate,
}
