"""The model around S5 layers: which tensors belong to it, what they prove, and its forward pass.

Published paths, below a root such as `params`: `encoder/encoder` (Dense), `encoder/layers_i/{norm, out1, out2}`,
`decoder` (Dense) or `decoder/{layer1, layer2}` (retrieval), and `batch_stats/encoder/layers_i/norm/{mean, var}`. In
flax.nnx the layers are `encoder/layers/i`, and a norm keeps its statistics beside its scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lastcli.containers.base import TensorInfo
from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Forward, Layer, next_token
from lastcli.families.parts.leaves import canonical
from lastcli.families.parts.stepping import step_by_step

if TYPE_CHECKING:
    from lastcli.families.s5.model import S5Model

__all__ = ["Wrapper", "find_wrapper", "spelled", "tree_of"]

Path = tuple[str, ...]

_ENCODER: Path = ("encoder", "encoder", "kernel")
_STATISTICS: set[Path] = {("norm", "mean"), ("norm", "var")}


class Wrapper(NamedTuple):
    """The tensors around the layers of one published S5 model.

    Attributes:
        params: path in the model's parameter tree ("encoder", "layers_0", "norm", "scale") → tensor.
        batch_stats: the same for the statistics of batch normalisation.
        variables: whether the file keeps the collection's name ("params"), so that a file without `batch_stats`
            is a model without them.
    """

    params: Mapping[Path, TensorInfo]
    batch_stats: Mapping[Path, TensorInfo]
    variables: bool

    def proves(self) -> dict[str, Any]:
        """Option values that follow from which tensors there are."""
        proven: dict[str, Any] = {}
        if self.batch_stats:
            proven["norm"] = "batch"
        elif self.variables and ("encoder", "layers_0", "norm", "scale") in self.params:
            proven["norm"] = "layer"
        outs = {path[2] for path in self.params if len(path) == 4 and path[2] in ("out1", "out2")}
        if "out1" in outs:
            proven["activation"] = "full_glu"
        elif not outs and any(path[1].startswith("layers_") for path in self.params):
            proven["activation"] = "gelu"
        if ("decoder", "layer1", "kernel") in self.params:
            proven["task"] = "retrieval"
        return proven

    def forward(self, config: Config, layers: Sequence[Layer]) -> Forward | None:
        """The published model as a function, or None where there is no published head.

        Raises:
            UnsupportedModelError: the description asks for a tensor that is not there.
        """
        last = ("decoder", "layer2") if config["task"] == "retrieval" else ("decoder",)
        if (*last, "kernel") not in self.params and not any(path[0] == "decoder" for path in self.params):
            return None
        params, stats = self._needed(config, len(layers))
        features, outputs = params[_ENCODER].shape[0], params[(*last, "kernel")].shape[1]

        def encoded(values: Mapping[str, Any], systems: Sequence[Any], x: Any) -> tuple[Any, tuple[Any, ...]]:
            from lastcli.families.s5 import model

            return model.encoded(self.module(config, layers), variables(values), systems, x)

        def decoded(values: Mapping[str, Any], h: Any) -> Any:
            from lastcli.families.s5 import model

            return model.decoded(self.module(config, layers), variables(values), h)

        def variables(values: Mapping[str, Any]) -> dict[str, Any]:
            from lastcli.families.s5.model import widen

            return {
                "params": tree_of({path: widen(values[info.name]) for path, info in params.items()}),
                "batch_stats": tree_of({path: widen(values[info.name]) for path, info in stats.items()}),
            }

        def apply(values: Mapping[str, Any], systems: Sequence[Any], x: Any, lengths: Any) -> tuple[Any, Any]:
            model = self.module(config, layers)
            y, sown = model.apply(variables(values), x, lengths, systems=tuple(systems), mutable=["intermediates"])
            seen = sown["intermediates"]["encoder"]
            return y, tuple(seen[f"layers_{i}"]["seq"]["input"][0] for i in range(len(layers)))

        sequence = config["mode"] == "sequence" and config["task"] != "retrieval"
        stepped: dict[str, Any] = {"unsteppable": "its head compares two whole sequences"}
        if config["task"] != "retrieval":
            stepped = step_by_step(
                encoded,
                decoded,
                over="mean" if config["mode"] == "pool" else "last",
                sequence=sequence,
                width=params[_ENCODER].shape[1],
            )
        return Forward(
            apply=apply,
            features=features,
            outputs=outputs,
            task="classification" if config["task"] == "retrieval" else config["task"],
            sequence=sequence,
            params=tuple(info.name for info in (*params.values(), *stats.values())),
            layout="pair" if config["task"] == "retrieval" else "single",
            generates=next_token(config),
            **stepped,
        )

    def module(self, config: Config, layers: Sequence[Layer]) -> S5Model:
        """The flax module whose parameter tree is the checkpoint's, with a state size for every layer."""
        from lastcli.families.s5.model import S5Model

        last = ("decoder", "layer2") if config["task"] == "retrieval" else ("decoder",)
        features, d_model = self.params[_ENCODER].shape
        return S5Model(
            features=features,
            d_output=self.params[(*last, "kernel")].shape[1],
            d_model=d_model,
            ssm_sizes=tuple(layer.states for layer in layers),
            joint_c=bool(config["bidirectional"]) and "C" in layers[0].tensors,
            **{key: config[key] for key in config if key in S5Model.__dataclass_fields__},
        )

    def _needed(self, config: Config, count: int) -> tuple[dict[Path, TensorInfo], dict[Path, TensorInfo]]:
        """The parameters and statistics that the described model uses."""
        dense: list[Path] = [("encoder", "encoder")]
        outs = {"full_glu": ("out1", "out2"), "gelu": ()}.get(config["activation"], ("out2",))
        norms: list[Path] = []
        for i in range(count):
            norms.append(("encoder", f"layers_{i}", "norm"))
            dense += [("encoder", f"layers_{i}", out) for out in outs]
        heads: list[Path] = [("decoder",)]
        if config["task"] == "retrieval":
            heads = [("decoder", "layer1"), ("decoder", "layer2")]
        wanted: list[Path] = [(*path, leaf) for path in (*dense, *heads) for leaf in ("kernel", "bias")]
        wanted += [(*path, leaf) for path in norms for leaf in ("scale", "bias")]
        statistics: list[Path] = [(*path, leaf) for path in norms for leaf in ("mean", "var")]
        params = {path: _find(self.params, path, config) for path in wanted}
        stats = {path: _find(self.batch_stats, path, config) for path in statistics if config["norm"] == "batch"}
        self._check_leftovers(params, config)
        return params, stats

    def _check_leftovers(self, used: Mapping[Path, TensorInfo], config: Config) -> None:
        for path, info in self.params.items():
            if len(path) == 4 and path[2] in ("out1", "out2") and path not in used:
                raise UnsupportedModelError(
                    f"{info.name} has no place in a model with activation={config['activation']}; "
                    "correct the model description (full_glu has out1 and out2, half_glu1 and half_glu2 have out2)."
                )


def _find(found: Mapping[Path, TensorInfo], path: Path, config: Config) -> TensorInfo:
    if path in found:
        return found[path]
    hint = "the encoder is not the published one"
    if "norm" in path:
        hint = f"it belongs to norm={config['norm']}"
        hint += "; a model with layer norm needs norm=layer" if path[-1] in ("mean", "var") else ""
    elif path[2:3] and path[2] in ("out1", "out2"):
        hint = f"it belongs to activation={config['activation']}; correct the model description"
    elif path[0] == "decoder":
        hint = f"it belongs to task={config['task']}"
    raise UnsupportedModelError(f"The tensor {'/'.join(path)} is missing: {hint}.")


def find_wrapper(tensors: Mapping[str, TensorInfo]) -> Wrapper | None:
    """The published model around the layers, or None where its input encoder is not there."""
    paths = {spelled(name): info for name, info in tensors.items()}
    roots = [path[: -len(_ENCODER)] for path in paths if path[-len(_ENCODER) :] == _ENCODER]
    if len(roots) != 1:
        return None
    root = roots[0]
    params = {
        path[len(root) :]: info
        for path, info in paths.items()
        if path[: len(root)] == root and path[len(root) : len(root) + 1] in (("encoder",), ("decoder",))
    }
    stats = {path[path.index("batch_stats") + 1 :]: info for path, info in paths.items() if "batch_stats" in path[:-1]}
    stats |= {path: info for path, info in params.items() if path[-2:] in _STATISTICS}
    params = {path: info for path, info in params.items() if "seq" not in path and path[-2:] not in _STATISTICS}
    return Wrapper(params, stats, "params" in root)


def spelled(name: str) -> Path:
    """The path of a tensor, its layers as flax.linen calls them: flax.nnx has `layers/0` for `layers_0`."""
    path: list[str] = []
    for part in canonical(name).split("/"):
        if part.isdecimal() and path and path[-1] == "layers":
            path[-1] = f"layers_{part}"
        else:
            path.append(part)
    return tuple(path)


def tree_of(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    """Nested dictionaries from paths."""
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = value
    return tree
