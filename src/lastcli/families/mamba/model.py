"""The model around the mixers: a language model, or a plain stack with a head.

Both are residual blocks h + mixer(norm(h)) and a last norm. A language model embeds tokens before and reads them out
behind, through `lm_head` or the embedding itself. A plain stack has a linear map before, and a head over the last step
(or the mean over the steps) of a sequence; a head S times as wide as the model reads the last steps of S sequences side
by side, which pass through the blocks each by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lastcli.families.base import Config, Forward, Layer, Tensors
from lastcli.families.mamba.names import block_of
from lastcli.families.parts.leaves import split

__all__ = ["Around", "around", "model_forward"]

_EMBEDDINGS = ("embeddings.weight", "embedding.weight", "embed_tokens.weight", "wte.weight", "tok_embeddings.weight")
_LAST_NORMS = ("norm_f", "final_layernorm", "norm", "ln_f", "norm_out")
_HEADS = ("lm_head", "head", "output_layer", "classifier", "decoder", "fc", "out")


@dataclass(frozen=True)
class Around:
    """Names around the mixers; a norm is the path of its weight without the leaf.

    Attributes:
        norms: of each block. last: the norm behind them.
        before: the embedding, or the linear map of a plain stack.
        head: None where the embedding is read backwards.
        width: H. series: sequences side by side that the head reads.
    """

    norms: tuple[str, ...]
    last: str
    before: str
    head: str | None
    tokens: bool
    width: int
    series: int
    names: tuple[str, ...]


def around(tensors: Tensors, layers: Sequence[Layer], bases: Sequence[str]) -> Around | None:
    """What is around the mixers, or None where it is another model (a hybrid's other blocks, more than these)."""
    own = {name for layer in layers for name in layer.tensors.values()}
    rest = {name for name in tensors if name not in own}
    width = tensors[layers[0].tensors["out_proj"]].shape[0]
    sign = bases[0][-1:] or "."
    norms = []
    for base in bases:
        found = _norm_of(block_of(base), rest, sign) or _norm_of(block_of(block_of(base)), rest, sign)
        if found is None:
            return None
        norms.append(found)
        rest -= {found + "weight", found + "bias"}
    root = bases[0][: bases[0].find("layers" + sign)] if "layers" + sign in bases[0] else ""
    last = next((root + name + sign for name in _LAST_NORMS if root + name + sign + "weight" in rest), None)
    if last is None:
        return None
    rest -= {last + "weight", last + "bias"}
    tables = [root + name.replace(".", sign) for name in _EMBEDDINGS]
    embedding = next((name for name in tables if name in rest), None)
    head = next((name for name in rest if split(name)[1] == "weight" and name.split(sign)[-2:][0] in _HEADS), None)
    maps = [name for name in rest if len(tensors[name].shape) == 2]
    if embedding is not None:
        rest -= {embedding, head or embedding}
        return None if rest else _known(tensors, norms, last, embedding, head, True, width, 1)
    linear = [name for name in maps if name != head and tensors[name].shape[0] == width]
    if head is None or len(linear) != 1 or tensors[head].shape[1] % width:
        return None
    rest -= {name[: -len("weight")] + leaf for name in (head, linear[0]) for leaf in ("weight", "bias")}
    series = tensors[head].shape[1] // width
    return None if rest else _known(tensors, norms, last, linear[0], head, False, width, series)


def _norm_of(block: str, rest: set[str], sign: str) -> str | None:
    spelled = ("norm", "input_layernorm", "norm1", "ln")
    return next((f"{block}{name}{sign}" for name in spelled if f"{block}{name}{sign}weight" in rest), None)


def _known(
    tensors: Tensors, norms: list[str], last: str, before: str, head: str | None, tokens: bool, width: int, series: int
) -> Around:
    paths = [*norms, last, before[: -len("weight")], *([head[: -len("weight")]] if head else [])]
    names = tuple(path + leaf for path in paths for leaf in ("weight", "bias") if path + leaf in tensors)
    return Around(tuple(norms), last, before, head, tokens, width, series, names)


def model_forward(tensors: Tensors, config: Config, found: Around) -> Forward:
    """The model as a function; every mixer is the system that is given."""
    eps, pooling = config["norm_eps"], config["pooling"]

    def blocks(params: Any, systems: Sequence[Any], h: Any) -> tuple[Any, list[Any]]:
        from lastcli.engine.selective.mixer import mix

        inputs = []
        for norm, system in zip(found.norms, systems):
            u = _norm(params, norm, h, eps)
            inputs.append(u)
            h = h + mix(system, u)
        return _norm(params, found.last, h, eps), inputs

    def language(params: Any, systems: Sequence[Any], x: Any, lengths: Any = None) -> tuple[Any, tuple[Any, ...]]:
        import jax.numpy as jnp

        h, inputs = blocks(params, systems, jnp.asarray(params[found.before])[x])
        return _linear(params, found.head or found.before, h), tuple(inputs)

    def stack(params: Any, systems: Sequence[Any], x: Any, lengths: Any = None) -> tuple[Any, tuple[Any, ...]]:
        import jax.numpy as jnp

        from lastcli.families.parts.blocks import pool

        x = x.astype(params[found.before].dtype)
        n = len(x)
        if found.series > 1:  # all first sequences of a batch, then all second ones
            x = jnp.moveaxis(x, 1, 0).reshape(found.series * n, *x.shape[2:])
        h, inputs = blocks(params, systems, _linear(params, found.before, x))
        h = pool(h, pooling, None if found.series > 1 else lengths)
        if found.series > 1:
            h = jnp.moveaxis(h.reshape(found.series, n, -1), 0, 1).reshape(n, -1)
        return _linear(params, found.head, h), tuple(inputs)

    def step(params: Any, systems: Sequence[Any], cache: Any, x: Any) -> tuple[Any, Any]:
        import jax.numpy as jnp

        from lastcli.engine.selective.step import step as next_step

        table = jnp.asarray(params[found.before])
        h = table[x] if found.tokens else _linear(params, found.before, x.astype(table.dtype))
        carried = []
        for norm, system, held in zip(found.norms, systems, cache):
            answer, held = next_step(system, held, _norm(params, norm, h, eps))
            h = h + answer
            carried.append(held)
        h = _norm(params, found.last, h, eps)
        # a head over the last step reads it; one over several sequences waits for all of them
        outputs = h if found.series > 1 else _linear(params, found.head or found.before, h)
        return outputs, tuple(carried)

    outputs = tensors[found.head or found.before].shape[0]
    if found.tokens:
        vocabulary = tensors[found.before].shape[0]
        return Forward(
            language,
            vocabulary,
            outputs,
            task="classification",
            sequence=True,
            params=found.names,
            tokens=True,
            generates=1,
            step=step,
            start=_start,
        )
    return Forward(
        stack,
        tensors[found.before].shape[1],
        outputs,
        task=config["task"],
        params=found.names,
        layout="single" if found.series == 1 else "series",
        series=found.series,
        step=step,
        start=_start,
    )


def _start(systems: Sequence[Any], n: int) -> tuple[Any, ...]:
    """What n sequences that begin carry, a cache for each mixer."""
    from lastcli.engine.selective.step import start

    return tuple(start(system, n) for system in systems)


def _norm(params: Any, path: str, h: Any, eps: float) -> Any:
    """An RMS norm, or where there is a bias a layer norm."""
    from lastcli.families.parts.blocks import layer_norm, rms_norm

    scale, bias = params[path + "weight"], params.get(path + "bias")
    return rms_norm(h, scale, eps) if bias is None else layer_norm(h, scale, bias, eps)


def _linear(params: Any, name: Any, x: Any) -> Any:
    from lastcli.families.parts.blocks import linear

    return linear(x, params[name], params.get(name[: -len("weight")] + "bias"))
