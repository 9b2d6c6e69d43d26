"""Where training code keeps the settings of a run, beside the model."""

from __future__ import annotations

__all__ = ["HOLDERS"]

HOLDERS = (
    "hyper_parameters",
    "hparams",
    "config",
    "cfg",
    "conf",
    "args",
    "model_config",
    "model_args",
    "model_kwargs",
    "model_params",
    "settings",
)
"""The keys under which they stand."""
