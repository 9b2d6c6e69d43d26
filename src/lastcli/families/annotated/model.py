"""The stacked model of the annotated S4 (flax): encoder → blocks → decoder, over the names of its parameter tree.

A block: norm → layer → gelu → out, gated by sigmoid(out2) where there is one → + skip (norm after the skip without
`prenorm`). A classifier takes the mean over time; the sequence model divides by 255, shifts its input by one step and
predicts every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lastcli.families.base import Config, Forward, Layer, Option, Tensors, task_option
from lastcli.families.parts.stepping import step_by_step

__all__ = ["STACK_OPTIONS", "stacked_forward"]

STACK_OPTIONS = (
    Option("prenorm", bool, True, "whether the norm comes before the layer instead of after the skip"),
    Option("mode", str, "pool", "classification of the sequence, or prediction of every step", ("pool", "sequence")),
    task_option("classification"),
    Option("eps", float, 1e-6, "epsilon of the layer norm"),
)


def _embedding(tensors: Tensors, root: str) -> str:
    """The table that the published encoder looks tokens up in.

    The encoder is an embedding that holds another one and asks that one only, so a file has both tables.
    """
    inner = f"{root}encoder/Embed_0/embedding"
    return inner if inner in tensors else f"{root}encoder/embedding"


def stacked_forward(tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
    """The published model as a pure function, or None where the names are those of another model."""
    stems = [layer.name.removesuffix("seq") for layer in layers]
    root = stems[0].rpartition("layers_")[0] if stems else ""
    table = _embedding(tensors, root)
    embeds = table in tensors
    ends = [table] if embeds else [f"{root}encoder/kernel", f"{root}encoder/bias"]
    ends += [f"{root}decoder/kernel", f"{root}decoder/bias"]
    inner = [f"{stem}{leaf}" for stem in stems for leaf in ("norm/scale", "norm/bias", "out/kernel", "out/bias")]
    gated = [stem for stem in stems if f"{stem}out2/kernel" in tensors]
    names = ends + inner + [f"{stem}out2/{leaf}" for stem in gated for leaf in ("kernel", "bias")]
    if not stems or any(name not in tensors for name in names):
        return None
    features = tensors[ends[0]].shape[0]

    def dense(params: dict[str, Any], h: Any, name: str) -> Any:
        from lastcli.families.parts.blocks import linear

        return linear(h, params[f"{name}/kernel"].T, params[f"{name}/bias"])

    def apply(params: dict[str, Any], systems: Sequence[Any], x: Any, lengths: Any = None) -> Any:
        import jax.numpy as jnp

        if config["mode"] == "sequence":
            x = x if x.ndim == 3 else x[..., None]
            x = jnp.pad(x[:, :-1] if embeds else x[:, :-1] / 255.0, [(0, 0), (1, 0), (0, 0)])
        h, inputs = features_of(params, systems, x)
        return head(params, h, lengths), inputs

    def features_of(params: dict[str, Any], systems: Sequence[Any], x: Any) -> tuple[Any, tuple[Any, ...]]:
        import jax
        import jax.numpy as jnp

        from lastcli.engine.simulate import simulate
        from lastcli.families.parts import blocks as nn

        if embeds:
            tokens = (x[..., 0] if x.ndim == 3 else x).astype(jnp.int32)
            # The published encoder gives token 0, the padding, no embedding.
            h = jnp.where(tokens[..., None] > 0, jnp.asarray(params[table])[tokens], 0.0)
        else:
            h = dense(params, nn.as_features(x, features, params[ends[0]].dtype), f"{root}encoder")
        inputs = []
        for stem, system in zip(stems, systems, strict=True):
            scale, bias = params[f"{stem}norm/scale"], params[f"{stem}norm/bias"]
            u = nn.layer_norm(h, scale, bias, config["eps"]) if config["prenorm"] else h
            inputs.append(u)
            y = nn.activation("gelu_tanh", simulate(system, u).astype(h.dtype))
            out = dense(params, y, f"{stem}out")
            h = h + (out * jax.nn.sigmoid(dense(params, y, f"{stem}out2")) if stem in gated else out)
            if not config["prenorm"]:
                h = nn.layer_norm(h, scale, bias, config["eps"])
        return h, tuple(inputs)

    def head(params: dict[str, Any], h: Any, lengths: Any = None) -> Any:
        from lastcli.families.parts.blocks import class_scores, pool

        return class_scores(dense(params, pool(h, config["mode"], lengths), f"{root}decoder"), config["task"])

    stepped: dict[str, Any] = step_by_step(
        features_of,
        head,
        over="mean" if config["mode"] == "pool" else "last",
        sequence=config["mode"] == "sequence",
        width=tensors[f"{root}decoder/kernel"].shape[0],
    )
    if config["mode"] == "sequence":
        stepped = _one_late(stepped, features, embeds)
    return Forward(
        apply=apply,
        features=features,
        outputs=tensors[f"{root}decoder/bias"].shape[0],
        task=config["task"],
        sequence=config["mode"] == "sequence",
        generates=0,  # its input is shifted by one step already
        params=tuple(names),
        **stepped,
    )


def _one_late(stepped: dict[str, Any], features: int, embeds: bool) -> dict[str, Any]:
    """The same for a model whose step sees the input of the step before: that is carried too."""

    def step(params: Any, systems: Sequence[Any], cache: Any, x: Any) -> tuple[Any, Any]:
        inner, before = cache
        outputs, inner = stepped["step"](params, systems, inner, before)
        now = (x if x.ndim == 2 else x[:, None]).astype(before.dtype)
        return outputs, (inner, now if embeds else now / 255.0)

    def start(systems: Sequence[Any], n: int) -> Any:
        import jax.numpy as jnp

        inner = stepped["start"](systems, n)
        before = jnp.zeros((n, 1), jnp.int32) if embeds else jnp.zeros((n, features), inner.states[0].re.dtype)
        return inner, before

    return {"step": step, "start": start}
