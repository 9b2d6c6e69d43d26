"""The published models around LRU layers, recognised by their tensor names.

A model is recognised only if every tensor of the file has its place in it: an unknown tensor means another forward
pass, and a wrong one would be worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from lastcli.families.base import Config, Tensors
from lastcli.families.equinox.names import find_equinox
from lastcli.families.parts.leaves import canonical, is_counter

__all__ = ["GATES", "flax_root", "gates_of", "net_of", "reads_before", "recognise", "sandwiches_of", "settled_model"]

# DeepSSM's residual gates: one around layer and feed-forward network at first, later one around each.
GATES = ("res_logit", "ssm_res_logit", "ff_res_logit")

# The feed-forward networks with a Lipschitz bound ("LMLP", "LGLU2", "LGLU").
_BOUNDED = r"model/\d+/(weight|alpha|psi)|raw_lip|[AB]/W_raw|lin/parametrizations/weight/(original|0/_[uv])"
# What tells each kind of feed-forward network.
_FEEDS = (
    "lin/parametrizations/weight/original",
    "output_linear/0/weight",
    "c_fc/weight",
    "net/0/weight",
    "A/W_raw",
    "model/1/psi",
)
_LAYER = r"(nu_log|theta_log|gamma_log|D|B|Bp|C|B_re|B_im|C_re|C_im)"
_FLAX = re.compile(
    r"(encoder/encoder/(kernel|bias)|decoder/(kernel|bias)"
    rf"|encoder/layers_\d+/(seq/{_LAYER}|out[12]/(kernel|bias)|normalization/(scale|bias)))"
)
_FLAX_STATISTICS = re.compile(r"batch_stats/encoder/layers_\d+/normalization/(mean|var)")
_TORCH = re.compile(
    rf"((encoder|decoder)/(weight|bias)|blocks/\d+/(lru/{_LAYER}|ln/(weight|bias)|{'|'.join(GATES)}"
    rf"|ff/((output_linear/0|c_fc|c_proj|net/\d+)/(weight|bias)|{_BOUNDED})))"
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
    feeds = [f"{block}/ff/{part}" for block in blocks for part in _FEEDS]
    if not names >= {"encoder/weight", "decoder/weight"} or sum(feed in names for feed in feeds) != len(blocks):
        return None
    gates = {gates_of(names, block) for block in blocks}
    nets = [net_of(names, block) for block in blocks if f"{block}/ff/net/0/weight" in names]
    if any(sandwiches_of(names, block) is None for block in blocks):
        return None
    if len(gates) != 1 or None in nets or gates - {(), GATES[:1], GATES[1:]}:
        return None
    if "encoder/bias" not in names:
        return "deep-ssm"
    return "dlru" if gates == {()} and all(f"{block}/ln/weight" in names for block in blocks) else None


def gates_of(names: Collection[str], block: str) -> tuple[str, ...]:
    """The residual gates that a block has."""
    return tuple(gate for gate in GATES if f"{block}/{gate}" in names)


def sandwiches_of(names: Collection[str], block: str) -> tuple[int, ...] | None:
    """The sandwich layers of a feed-forward `model` by their numbers, from 1 on; None where the last is another one."""
    found = (re.fullmatch(rf"{re.escape(block)}/ff/model/(\d+)/weight", name) for name in names)
    numbers = sorted(int(match[1]) for match in found if match)
    inner = [n for n in numbers if f"{block}/ff/model/{n}/psi" in names]
    whole = numbers == [*range(1, len(numbers) + 1)] and inner == numbers[:-1]
    return tuple(numbers) if whole else None


def net_of(names: Collection[str], block: str) -> tuple[int, ...] | None:
    """The linear maps of a feed-forward `net` by their numbers, the GELU being the one that is missing before the last.

    None where the numbers leave out another one, so that this is another network.
    """
    found = (re.fullmatch(rf"{re.escape(block)}/ff/net/(\d+)/weight", name) for name in names)
    numbers = sorted(int(match[1]) for match in found if match)
    last = len(numbers)
    return tuple(numbers) if last >= 2 and numbers == [*range(last - 1), last] else None


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
