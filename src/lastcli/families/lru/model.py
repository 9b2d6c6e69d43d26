"""Forward passes of the published models around LRU layers; imports JAX, so it is itself imported lazily.

- minimal-LRU (flax): Dense → layers [norm → LRU → gelu → out1(x)·σ(out2(x))] + skip → pooling → Dense → log-softmax.
  It pools over every step that comes in, padding included, and has no use for true lengths; with `multidim` m its head
  gives m classes for each of several outputs a step
- DeepSSM (DecodEPFL, torch): Linear → blocks → Linear, sequence to sequence; its `ln` is not used. A block is
  x + ff(LRU(x)); with one gate (`res_logit`) x + σ(g) ff(LRU(x)); with two z + σ(g_ff) ff(z), z = x + σ(g_ssm) LRU(x)
- DLRU (lru-reduction, torch): the same with a LayerNorm before every LRU
ff: see `families.lru.feedforward`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from lastcli.engine.simulate import simulate
from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Forward, Layer, Tensors, next_token
from lastcli.families.lru.feedforward import dense, feed
from lastcli.families.lru.names import flax_root
from lastcli.families.parts.blocks import along, as_features, class_scores, layer_norm, linear, pool
from lastcli.families.parts.leaves import canonical
from lastcli.families.parts.stepping import step_by_step

if TYPE_CHECKING:
    from lastcli.engine.system import DiagonalSystem

__all__ = ["forward"]

_POOLS = {"mean": "pool", "last": "last", "none": "sequence"}

Params = Mapping[str, Any]
Systems = Sequence["DiagonalSystem"]
Result = tuple[Any, tuple[Any, ...]]


def forward(tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
    """The model that `config["architecture"]` names, or None."""
    architecture = config.get("architecture", "none")
    stateful = {name for layer in layers for name in layer.tensors.values()}
    names = {canonical(name): name for name in tensors if name not in stateful}
    if architecture == "minimal-lru":
        return _minimal_lru(tensors, names, config, layers)
    if architecture in ("deep-ssm", "dlru"):
        return _torch_blocks(tensors, names, config, layers, architecture)
    return None


def _minimal_lru(tensors: Tensors, names: Mapping[str, str], config: Config, layers: Sequence[Layer]) -> Forward:
    root = flax_root([layer.name for layer in layers]) or ""
    paths = [f"{root}encoder/layers_{i}" for i in range(len(layers))]
    statistics = [f"batch_stats/encoder/layers_{i}/normalization" for i in range(len(layers))]
    norm = config.get("norm", "auto")
    norm = ("batch" if f"{statistics[0]}/mean" in names else "layer") if norm == "auto" else norm
    needed = [f"{path}/{part}" for path in (f"{root}encoder/encoder", f"{root}decoder") for part in ("kernel", "bias")]
    needed += [f"{path}/out{j}/{part}" for path in paths for j in (1, 2) for part in ("kernel", "bias")]
    if norm != "none":
        needed += [f"{path}/normalization/{part}" for path in paths for part in ("scale", "bias")]
    if norm == "batch":
        needed += [f"{statistic}/{part}" for statistic in statistics for part in ("mean", "var")]
    used = _require(names, needed, f"architecture minimal-lru with norm {norm}")
    pooling, prenorm = config.get("pooling", "mean"), config.get("prenorm", True)
    task = _task(config, "classification")
    features = tensors[used[f"{root}encoder/encoder/kernel"]].shape[0]
    width = tensors[used[f"{root}decoder/kernel"]].shape[1]
    classes = _classes(config, width)

    def features_of(params: Params, systems: Systems, x: Any) -> Result:
        p = {path: params[name] for path, name in used.items()}
        kernel = p[f"{root}encoder/encoder/kernel"]
        x = _dense(p, f"{root}encoder/encoder", as_features(jnp.asarray(x), features, kernel.dtype))
        inputs = []
        for path, statistic, system in zip(paths, statistics, systems, strict=True):
            u = _flax_norm(p, norm, path, statistic, x) if prenorm else x
            inputs.append(u)
            y = jax.nn.gelu(simulate(system, u))
            x = x + _dense(p, f"{path}/out1", y) * jax.nn.sigmoid(_dense(p, f"{path}/out2", y))
            x = x if prenorm else _flax_norm(p, norm, path, statistic, x)
        return x, tuple(inputs)

    def head(params: Params, h: Any) -> Any:
        p = {path: params[name] for path, name in used.items()}
        x = _dense(p, f"{root}decoder", pool(h, _POOLS[pooling], None))
        x = x if classes == width else x.reshape(*x.shape[:-1], width // classes, classes)
        return class_scores(x, task)

    def apply(params: Params, systems: Systems, x: Any, lengths: Any = None) -> Result:
        h, inputs = features_of(params, systems, x)
        return head(params, h), inputs

    return Forward(
        apply,
        features,
        classes,
        task,
        sequence=pooling == "none",
        params=tuple(used.values()),
        generates=next_token(config),
        several=width // classes,
        **step_by_step(
            features_of,
            head,
            over="mean" if pooling == "mean" else "last",
            sequence=pooling == "none",
            width=tensors[used[f"{root}decoder/kernel"]].shape[0],
        ),
    )


def _task(config: Config, usual: str) -> str:
    said = config.get("task", "auto")
    return usual if said == "auto" else str(said)


def _classes(config: Config, width: int) -> int:
    """Classes of one output of a head of this width.

    Raises:
        UnsupportedModelError: `multidim` does not divide the head, or the sequence is pooled.
    """
    count = int(config.get("multidim", 1))
    if count <= 1:
        return width
    if width % count or config.get("pooling", "mean") != "none":
        raise UnsupportedModelError(
            f"multidim is {count}, which is for a head at every step (pooling=none) whose {width} outputs it divides; "
            "correct the model description."
        )
    return count


def _torch_blocks(
    tensors: Tensors, names: Mapping[str, str], config: Config, layers: Sequence[Layer], architecture: str
) -> Forward:
    norm = config.get("norm", "auto")
    norm = ("layer" if architecture == "dlru" else "none") if norm == "auto" else norm
    if norm == "batch":
        raise UnsupportedModelError(f"norm is batch, but {architecture} has no batch normalisation; use layer or none.")
    blocks = [f"blocks/{i}" for i in range(len(layers))]
    needed = ["encoder/weight", "decoder/weight", *(f"{block}/ln/weight" for block in blocks if norm == "layer")]
    optional = [name for name in names if norm == "layer" or "/ln/" not in name]
    used = _require(names, dict.fromkeys(needed + optional), f"architecture {architecture} with norm {norm}")
    task = _task(config, "regression")
    features, outputs = tensors[used["encoder/weight"]].shape[1], tensors[used["decoder/weight"]].shape[0]
    bound = float(config.get("lip", 1.0))

    def features_of(params: Params, systems: Systems, x: Any) -> Result:
        p = {path: params[name] for path, name in used.items()}
        x = dense(p, "encoder", as_features(jnp.asarray(x), features, p["encoder/weight"].dtype))
        inputs = []
        for block, system in zip(blocks, systems, strict=True):
            u = layer_norm(x, p[f"{block}/ln/weight"], p.get(f"{block}/ln/bias"), 1e-5) if norm == "layer" else x
            inputs.append(u)
            x = _residual(p, block, x, simulate(system, u), bound)
        return x, tuple(inputs)

    def head(params: Params, h: Any) -> Any:
        return dense({path: params[name] for path, name in used.items()}, "decoder", h)

    def apply(params: Params, systems: Systems, x: Any, lengths: Any = None) -> Result:
        h, inputs = features_of(params, systems, x)
        return head(params, h), inputs

    return Forward(
        apply,
        features,
        outputs,
        task,
        sequence=True,
        params=tuple(used.values()),
        generates=next_token(config),
        **step_by_step(features_of, head, over="last", sequence=True, width=tensors[used["decoder/weight"]].shape[1]),
    )


def _require(names: Mapping[str, str], wanted: Iterable[str], why: str) -> dict[str, str]:
    """{canonical path: tensor name} of the wanted tensors."""
    wanted = list(wanted)
    absent = [path for path in wanted if path not in names]
    if absent:
        raise UnsupportedModelError(f"The model description says {why}, but the checkpoint has no {absent[0]}.")
    return {path: names[path] for path in wanted}


def _dense(params: Params, path: str, x: Any) -> Any:
    return linear(x, params[f"{path}/kernel"].T, params[f"{path}/bias"])


def _residual(params: Params, block: str, x: Any, y: Any, bound: float) -> Any:
    """What a block makes of its input x and its layer's output y, by the gates that it has."""

    def gate(name: str) -> Any:
        # one number, or one for each channel
        return along(jnp.broadcast_to(jax.nn.sigmoid(params[f"{block}/{name}"]).reshape(-1), x.shape[-1:]), x.ndim)

    if f"{block}/ssm_res_logit" in params:
        z = x + gate("ssm_res_logit") * y
        return z + gate("ff_res_logit") * feed(params, f"{block}/ff", z, bound)
    scale = gate("res_logit") if f"{block}/res_logit" in params else 1.0
    return x + scale * feed(params, f"{block}/ff", y, bound)


def _flax_norm(params: Params, norm: str, path: str, statistic: str, x: Any) -> Any:
    if norm == "none":
        return x
    scale, bias = (params[f"{path}/normalization/{part}"] for part in ("scale", "bias"))
    if norm == "layer":
        return layer_norm(x, scale, bias, 1e-6)
    stored = (params[f"{statistic}/mean"], params[f"{statistic}/var"], scale, bias)
    mean, variance, scale, bias = (along(part, x.ndim) for part in stored)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * scale + bias
