"""The published models around LRU layers, recognised by their tensor names.

A model is recognised only if every tensor of the file has its place in it: an unknown tensor means another forward
pass, and a wrong one would be worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lastcli.families.base import Tensors
from lastcli.families.equinox.names import find_equinox
from lastcli.families.parts.leaves import canonical

__all__ = ["flax_root", "recognise"]

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
    names = {canonical(name) for name in tensors}
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
