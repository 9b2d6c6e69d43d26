"""How Event-SSM spells its stages and layers, and the tensors around them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from lastcli.errors import UnsupportedModelError
from lastcli.families.base import Config, Layer, Tensors
from lastcli.families.parts.leaves import canonical
from lastcli.families.s5.layers import candidates

__all__ = ["around", "needed_by", "place_of", "staged"]

_LAYER = re.compile(r"(?:^|/)encoder/stages_(\d+)/SequenceLayer_(\d+)/S5SSM_0$")


def staged(tensors: Tensors) -> dict[str, dict[str, str]]:
    """{prefix: {role: name}} of the S5 layers that lie in a stage, complete or not."""
    return {prefix: roles for prefix, roles in candidates(tensors).items() if _LAYER.search(canonical(prefix))}


def place_of(layer: Layer) -> tuple[int, int]:
    """(stage, position in the stage).

    Raises:
        UnsupportedModelError: the layer lies in none.
    """
    found = _LAYER.search(canonical(layer.name))
    if found is None:
        raise UnsupportedModelError(f"{layer.name} is not a layer of a stage of Event-SSM.")
    return int(found[1]), int(found[2])


def around(tensors: Tensors) -> dict[str, str]:
    """{path from `encoder`, `decoder` or `batch_stats` on: name} of the model's tensors."""
    found = {}
    for name in tensors:
        path = canonical(name)
        if "opt_state" not in path.split("/"):
            at = re.search(r"(?:^|/)((?:batch_stats/)?(?:encoder|decoder)/.*)$", path)
            if at:
                found[at[1]] = name
    return found


def needed_by(found: Mapping[str, str], config: Config, layers: Sequence[Layer]) -> dict[str, str]:
    """The tensors around the layers that the described model uses.

    Raises:
        UnsupportedModelError: one is missing.
    """
    wanted = ["encoder/encoder/embedding", "decoder/kernel", "decoder/bias"]
    norm = "BatchNorm_0" if config["norm"] == "batch" else "LayerNorm_0"
    for layer in layers:
        stage, position = place_of(layer)
        path = f"encoder/stages_{stage}/SequenceLayer_{position}"
        wanted += [f"{path}/{norm}/scale", f"{path}/{norm}/bias", f"{path}/Dense_0/kernel", f"{path}/Dense_0/bias"]
        if config["norm"] == "batch":
            wanted += [f"batch_stats/{path}/{norm}/mean", f"batch_stats/{path}/{norm}/var"]
        if f"{path}/Dense_1/kernel" in found:
            wanted += [f"{path}/Dense_1/kernel", f"{path}/Dense_1/bias"]
    missing = [path for path in wanted if path not in found]
    if missing:
        raise UnsupportedModelError(
            f"The tensor {missing[0]} is missing, but a model with norm={config['norm']} has it; "
            "correct the model description."
        )
    return {path: found[path] for path in wanted}
