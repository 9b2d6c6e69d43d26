"""What the configuration of other programs says: `config.json` of transformers and mamba_ssm, or one inside a file.

transformers builds every layer with one `state_size` (Jamba, Zamba and Bamba say `mamba_d_state`, Nemotron-H
`ssm_state_size`), mamba_ssm with `ssm_cfg.d_state`; a configuration that says another than the tensors have makes them
refuse the file, or worse, so that it is written anew together with the tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

__all__ = ["options_of", "with_state_size"]

_STATE_SIZE = ("state_size", "mamba_d_state", "ssm_state_size", "d_state")
# option → the keys it has upstream
_KEYS: dict[str, tuple[str, ...]] = {
    "norm_eps": ("layer_norm_epsilon", "rms_norm_eps", "norm_epsilon"),
    "groups": ("n_groups", "mamba_n_groups", "mamba_ngroups", "ngroups"),
}
_SSM = "ssm_cfg"
# Whose mixers limit the step from below by `time_step_min` in transformers (5.24), whatever `time_step_limit` says.
_LEAST_STEP = frozenset({"zamba2", "nemotron_h"})
# Zamba 2 builds the norm behind the gate with its default.
_FIXED_EPS = {"zamba2": 1e-5}


def options_of(document: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The options among `known` that a configuration settles."""
    flat = {**document, **_inner(document)}
    found: dict[str, Any] = {}
    keys = {**_KEYS, "state_size": _STATE_SIZE}
    for option, spellings in keys.items():
        value = next((flat[key] for key in spellings if isinstance(flat.get(key), (int, float))), None)
        if option in known and value is not None:
            found[option] = value
    if document.get("model_type") == "falcon_mamba" and "inner_norms" in known:
        found["inner_norms"] = True
        found["inner_eps"] = document.get("mixer_rms_eps", 1e-6)
    if document.get("model_type") in ("jamba",) and "inner_eps" in known:
        found["inner_eps"] = document.get("rms_norm_eps", 1e-6)
    kind = document.get("model_type")
    limits = flat.get("time_step_limit", flat.get("dt_limit"))
    if kind in _LEAST_STEP:
        limits = [document.get("time_step_min", 1e-3), float("inf")]
    if "norm_eps" in known and kind in _FIXED_EPS:
        found["norm_eps"] = _FIXED_EPS[str(kind)]
    if "row_scales" in known and kind == "falcon_h1":
        found |= {"row_scales": _row_scales(document), "input_scale": _number(document.get("ssm_in_multiplier", 1.0))}
    if "step_limits" in known and isinstance(limits, list) and len(limits) == 2:
        found["step_limits"] = ",".join(str(_number(limit)) for limit in limits)
    first = flat.get("norm_before_gate", flat.get("mamba_norm_before_gate"))
    if "norm_before_gate" in known and isinstance(first, bool):
        found["norm_before_gate"] = first
    return found


def _row_scales(document: Mapping[str, Any]) -> str:
    """What Falcon-H1 multiplies the projections to z, x, B, C and the step by."""
    factors = document.get("ssm_multipliers")
    each = [_number(factor) for factor in factors] if isinstance(factors, list) and len(factors) == 5 else [1.0] * 5
    return ",".join(map(repr, each))


def _inner(document: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = document.get(_SSM)
    return inner if isinstance(inner, Mapping) else {}


def _number(value: Any) -> float:
    """A number; transformers writes infinity as {"__float__": "Infinity"}."""
    if isinstance(value, Mapping):
        value = value.get("__float__", "Infinity")
    return float(value)


def with_state_size(config: Mapping[str, Any], states: int) -> dict[str, Any]:
    """A `config.json` for another state size, everything else as it was."""
    document = copy.deepcopy(dict(config))
    inner = document.get(_SSM)
    for level in (document, inner):
        if isinstance(level, dict):
            for key in _STATE_SIZE:
                if key in level:
                    level[key] = states
    if isinstance(inner, dict) and not any(key in level for level in (document, inner) for key in _STATE_SIZE):
        inner["d_state"] = states  # mamba_ssm leaves out what has its default
    elif not any(key in document for key in _STATE_SIZE) and not isinstance(inner, dict):
        document["state_size"] = states
    return document
