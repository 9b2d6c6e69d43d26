"""The stacked model of the annotated S4 (flax): encoder → blocks → decoder, over the names of its parameter tree.

A block: norm → layer → gelu → out, gated by sigmoid(out2) where there is one → + skip (norm after the skip without
`prenorm`). A classifier takes the mean over time; the sequence model divides by 255, shifts its input by one step and
predicts every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lastcli.families.base import Config, Forward, Layer, Option, Tensors, task_option

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

    def apply(params: dict[str, Any], systems: Sequence[Any], x: Any, lengths: Any = None) -> Any:
        import jax
        import jax.numpy as jnp

        from lastcli.engine.simulate import simulate
        from lastcli.families.parts import blocks as nn

        def dense(h: Any, name: str) -> Any:
            return nn.linear(h, params[f"{name}/kernel"].T, params[f"{name}/bias"])

        if config["mode"] == "sequence":
            x = x if x.ndim == 3 else x[..., None]
            x = jnp.pad(x[:, :-1] if embeds else x[:, :-1] / 255.0, [(0, 0), (1, 0), (0, 0)])
        if embeds:
            tokens = (x[..., 0] if x.ndim == 3 else x).astype(jnp.int32)
            # The published encoder gives token 0, the padding, no embedding.
            h = jnp.where(tokens[..., None] > 0, params[table][tokens], 0.0)
        else:
            h = dense(nn.as_features(x, features, params[ends[0]].dtype), f"{root}encoder")
        inputs = []
        for stem, system in zip(stems, systems, strict=True):
            scale, bias = params[f"{stem}norm/scale"], params[f"{stem}norm/bias"]
            u = nn.layer_norm(h, scale, bias, config["eps"]) if config["prenorm"] else h
            inputs.append(u)
            y = nn.activation("gelu_tanh", simulate(system, u).astype(h.dtype))
            out = dense(y, f"{stem}out")
            h = h + (out * jax.nn.sigmoid(dense(y, f"{stem}out2")) if stem in gated else out)
            if not config["prenorm"]:
                h = nn.layer_norm(h, scale, bias, config["eps"])
        outputs = dense(nn.pool(h, config["mode"], lengths), f"{root}decoder")
        return nn.class_scores(outputs, config["task"]), tuple(inputs)

    return Forward(
        apply=apply,
        features=features,
        outputs=tensors[f"{root}decoder/bias"].shape[0],
        task=config["task"],
        sequence=config["mode"] == "sequence",
        generates=0,  # its input is shifted by one step already
        params=tuple(names),
    )
