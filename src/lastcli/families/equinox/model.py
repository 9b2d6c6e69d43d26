"""Forward pass of the equinox model around LinOSS, LRU and S5 layers; imports JAX, so it is itself imported lazily."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from lastcli.engine.simulate import simulate
from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Forward, Layer, Tensors
from lastcli.families.equinox.names import EquinoxModel, find_equinox, norm_of
from lastcli.families.parts.blocks import activation, along, as_features, linear, pool
from lastcli.families.parts.stepping import step_by_step

__all__ = ["equinox_forward"]

# equinox and PyTorch
_EPS = 1e-5
# The rate of equinox's running statistics; its mode "batch" starts them at zero and corrects for that in use.
_MOMENTUM = 0.99

Params = Mapping[str, Any]


def equinox_forward(tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
    """The model as a pure function; None where the names are another model's or the statistics are missing.

    Raises:
        UnsupportedModelError: the description asks for a regression of pairs, or for outputs less than a step apart.
    """
    model = find_equinox(tensors, [layer.name for layer in layers])
    regression = config.get("task") == "regression"
    if model is None or config.get("task") == "retrieval":  # an S5 may be asked for it
        return None
    if norm_of(config) == "batch" and model.without_statistics is not None:
        return None
    step = config["output_step"] if regression else 1
    if regression and model.pair:
        raise UnsupportedModelError("The description says task=regression, but dual_head classifies; drop it.")
    if step < 1:
        raise UnsupportedModelError(f"The description says output_step={step}; it must be at least 1.")
    run = _Run(model, config, regression, step)
    stepped: dict[str, Any] = {"unsteppable": "its head compares two whole sequences"}
    if not model.pair:
        over, width = "last" if regression else "mean", tensors[model.names[f"{model.head[0]}/weight"]].shape[1]
        stepped = step_by_step(run.features, run.head, over=over, sequence=regression, width=width)
    return Forward(
        apply=run,
        features=tensors[model.names["linear_encoder/weight"]].shape[0 if model.embeds else 1],
        outputs=tensors[model.names[f"{model.head[-1]}/weight"]].shape[0],
        task="multilabel" if config.get("task") == "multilabel" else "regression" if regression else "classification",
        sequence=regression,
        params=(*model.names.values(), *(name for names in run.statistics for name in names if name is not None)),
        layout="pair" if model.pair else "single",
        output_step=step,
        **stepped,
    )


class _Run:
    """`Forward.apply`: parameters, systems and inputs → outputs and the layers' inputs."""

    def __init__(self, model: EquinoxModel, config: Config, regression: bool, step: int) -> None:
        self.model, self.regression, self.step = model, regression, step
        self.tanh = bool(config["tanh_output"])
        self.norm = norm_of(config)
        found = [model.statistics(i) for i in range(len(model.norms) if self.norm == "batch" else 0)]
        self.statistics = [names for names in found if names is not None]
        gelu = config.get("gelu", "auto")
        self.gelu = "gelu" if gelu == "exact" or (gelu == "auto" and model.torch) else "gelu_tanh"

    def __call__(self, params: Params, systems: Sequence[Any], x: Any, lengths: Any = None) -> Any:
        x = jnp.asarray(x)
        if self.model.pair:  # the first documents of all pairs, then the second ones
            x, lengths = (None if a is None else jnp.concatenate([a[:, 0], a[:, 1]]) for a in (x, lengths))
        h, inputs = self.features(params, systems, x)
        head = self._every_so_often if self.regression else self._classify
        return head(params, h, lengths), inputs

    def features(self, params: Params, systems: Sequence[Any], x: Any) -> tuple[Any, tuple[Any, ...]]:
        """What the blocks make of every step (n, L, H), and the layers' inputs."""
        h, inputs = self._encode(params, jnp.asarray(x)), []
        for i, system in enumerate(systems):
            u = self._normalise(params, i, h)
            inputs.append(u)
            y = activation(self.gelu, simulate(system, u).astype(h.dtype))
            gate = activation("sigmoid", self._dense(params, f"blocks/{i}/glu/w2", y))
            h = h + self._dense(params, f"blocks/{i}/glu/w1", y) * gate
        return h, tuple(inputs)

    def head(self, params: Params, h: Any) -> Any:
        """The outputs for features (n, L, H); those of a regression at every step."""
        return self._outputs(params, h) if self.regression else self._classify(params, h, None)

    def _encode(self, params: Params, x: Any) -> Any:
        weight = params[self.model.names["linear_encoder/weight"]]
        if self.model.embeds:
            return weight[x] if x.ndim == 2 else linear(x.astype(weight.dtype), weight.T)
        return self._dense(params, "linear_encoder", as_features(x, weight.shape[1], weight.dtype))

    def _every_so_often(self, params: Params, h: Any, lengths: Any) -> Any:
        return self._outputs(params, h[:, self.step - 1 :: self.step])

    def _outputs(self, params: Params, h: Any) -> Any:
        outputs = self._dense(params, self.model.head[0], h)
        return jnp.tanh(outputs) if self.tanh else outputs

    def _classify(self, params: Params, h: Any, lengths: Any) -> Any:
        h = pool(h, "pool", lengths)
        if self.model.pair:
            h = jnp.concatenate(jnp.split(h, 2), axis=-1)
        for part in self.model.head[:-1]:
            h = activation("relu", self._dense(params, part, h))
        return self._dense(params, self.model.head[-1], h)

    def _dense(self, params: Params, path: str, x: Any) -> Any:
        return linear(x, *(params[self.model.names[f"{path}/{leaf}"]] for leaf in ("weight", "bias")))

    def _normalise(self, params: Params, block: int, h: Any) -> Any:
        if self.norm == "none":
            return h
        if self.norm == "layer":
            return (h - h.mean(axis=-1, keepdims=True)) / jnp.sqrt(h.var(axis=-1, keepdims=True) + _EPS)
        names = self.statistics[block]
        mean, variance = params[names.mean], params[names.variance]
        if names.updates is not None:
            updates = params[names.updates]
            share = jnp.where(updates == 0, 1.0, 1.0 - jnp.float32(_MOMENTUM) ** updates.astype(jnp.float32))
            mean, variance = mean / share, variance / share
        return (h - along(mean, h.ndim)) / along(jnp.sqrt(variance + _EPS), h.ndim)
