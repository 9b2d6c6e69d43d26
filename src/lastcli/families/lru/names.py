"""The published models around LRU layers, recognised by their tensor names.

A model is recognised only if every tensor of the file has its place in it: an unknown tensor means another forward
pass, and a wrong one would be worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from lastcli.families.base import Config, Tensors
from lastcli.families.equinox.names import find_equinox
from lastcli.families.parts.leaves import canonical, is_counter

__all__ = ["flax_root", "reads_before", "recognise", "settled_model"]

_LAYER = r"(nu_log|theta_log|gamma_log|D|B|Bp|C|B_re|B_im|C_re|C_im)"
_FLAX = re.compile(
    r"(encoder/encoder/(kernel|bias)|decoder/(kernel|bias)"
    rf"|encoder/layers_\d+/(seq/{_LAYER}|out[12]/(kernel|bias)|normalization/(scale|bias)))"
)
_FLAX_STATISTICS = re.compile(r"batch_stats/encoder/layers_\d+/normalization/(mean|var)")
_TORCH = re.compile(
    rf"((encoder|decoder)/(weight|bias)|blocks/\d+/(lru/{_LAYER}|ln/(weight|bias)"
    r"|ff/(output_linear/0|c_fc|c_proj)/(weight|bias)))"
)


def recognise(tensors: Tensors, layers: Sequence[str]) -> str | None:
    """The published model: "minimal-lru", "deep-ssm", "dlru" or "equinox", or None.

    DeepSSM (DecodEPFL) and DLRU (lru-reduction) share their names; DeepSSM's encoder has no bias, DLRU's has one.

    Args:
        layers: path of every LRU layer.
    """
    names = {canonical(name) for name, info in tensors.items() if not is_counter(info)}
    paths = {canonical(layer) for layer in layers}
    if not paths:
        return None
    if find_equinox(tensors, layers) is not None:
        return "equinox"
    root = flax_root(paths)
    if root is not None:
        return "minimal-lru" if _is_minimal_lru(names, root, len(paths)) else None
    blocks = [f"blocks/{i}" for i in range(len(paths))]
    if paths != {f"{block}/lru" for block in blocks} or not all(map(_TORCH.fullmatch, names)):
        return None
    feeds = [f"{block}/ff/{part}/weight" for block in blocks for part in ("output_linear/0", "c_fc")]
    if not names >= {"encoder/weight", "decoder/weight"} or sum(feed in names for feed in feeds) != len(blocks):
        return None
    if "encoder/bias" not in names:
        return "deep-ssm"
    return "dlru" if all(f"{block}/ln/weight" in names for block in blocks) else None


def reads_before(tensors: Tensors, layers: Sequence[str]) -> bool | None:
    """Whether the output reads the state before the update, where names tell; None where they do not.

    DecodEPFL's layers do: those of DeepSSM, of a file with `Bp`, and of blocks whose feed-forward network is made of
    sandwich layers (its "LMLP"). The other published models read the state after the update.

    Args:
        layers: path of every LRU layer.
    """
    architecture = recognise(tensors, layers)
    if architecture is not None:
        return architecture == "deep-ssm"
    names = {canonical(name) for name in tensors}
    own = [canonical(layer) for layer in layers]
    sandwiches = (rf"{re.escape(path.removesuffix('lru'))}ff/model/\d+/psi" for path in own)
    if any(f"{path}/Bp" in names for path in own) or all(any(re.fullmatch(s, n) for n in names) for s in sandwiches):
        return True
    return None


def settled_model(tensors: Tensors, config: Config) -> dict[str, tuple[Any, str]]:
    """What the published model around the layers does where norm and task are left to it: {key: (value, source)}."""
    architecture = config["architecture"]
    if architecture == "none":
        return {}
    statistics = any(_FLAX_STATISTICS.fullmatch(canonical(name)) for name in tensors)
    norms = {"minimal-lru": "batch" if statistics else "layer", "deep-ssm": "none", "dlru": "layer"}
    classifies = architecture in ("minimal-lru", "equinox")
    return {
        "norm": (norms.get(architecture, "batch"), "tensors" if statistics else "assumed"),
        "task": ("classification" if classifies else "regression", "assumed"),
    }


def flax_root(layers: Iterable[str]) -> str | None:
    """What stands before `encoder/layers_0/seq` ("params/" in a whole train state); None for other paths."""
    paths = {canonical(layer) for layer in layers}
    roots = {re.sub(r"encoder/layers_\d+/seq$", "", path) for path in paths}
    wanted = {f"{root}encoder/layers_{i}/seq" for root in roots for i in range(len(paths))}
    return roots.pop() if len(roots) == 1 and wanted == paths else None


def _is_minimal_lru(names: set[str], root: str, count: int) -> bool:
    own = {name.removeprefix(root) for name in names if name.startswith(root) and not _FLAX_STATISTICS.fullmatch(name)}
    others = {name for name in names if not name.startswith(root)}
    dense = ["encoder/encoder", "decoder", *(f"encoder/layers_{i}/out{j}" for i in range(count) for j in (1, 2))]
    return (
        all(map(_FLAX.fullmatch, own))
        and all(map(_FLAX_STATISTICS.fullmatch, others))
        and own >= {f"{path}/{part}" for path in dense for part in ("kernel", "bias")}
    )
