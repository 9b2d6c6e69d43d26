"""What every family's tests do: describe, take apart, reduce and put together checkpoints held as named arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lastcli.engine.system import DiagonalSystem, Reduction
from lastcli.families.base import Family, Layer
from tests.builders.named import Arrays, infos, updated

DOCS = Path(__file__).parents[2] / "docs"


def config_of(family: Family, arrays: Arrays, **changes: Any) -> dict[str, Any]:
    """Defaults, what the tensors prove, and what the test says."""
    defaults = {option.key: option.default for option in family.options}
    return {**defaults, **family.infer(infos(arrays)), **changes}


def layers_of(family: Family, arrays: Arrays, config: Mapping[str, Any]) -> tuple[Layer, ...]:
    return family.layers(infos(arrays), config)


def systems_of(family: Family, arrays: Arrays, config: Mapping[str, Any]) -> list[DiagonalSystem]:
    layers = layers_of(family, arrays, config)
    return [family.system(layer, config, arrays.__getitem__) for layer in layers]


def keep(system: DiagonalSystem, kept: np.ndarray) -> DiagonalSystem:
    """The kept states (sets, K) and nothing else, one group at a time."""
    parts = []
    for g in range(system.groups):
        own = kept[g % system.sets]
        at = np.concatenate([np.arange(i * system.modes, (i + 1) * system.modes) for i in own])
        parts.append((system.poles[g, at], system.B[g, at], system.C[g][..., at]))
    poles, B, C = (np.stack(values) for values in zip(*parts))
    return system.replace(poles=poles, B=B, C=C)


def masked(system: DiagonalSystem, kept: np.ndarray) -> DiagonalSystem:
    """The full size with zeros in the slots that are not kept."""
    alive = np.zeros(system.poles.shape, bool)
    for g in range(system.groups):
        for i in kept[g % system.sets]:
            alive[g, i * system.modes : (i + 1) * system.modes] = True
    return system.replace(
        poles=np.where(alive, system.poles, 0),
        B=np.where(alive[..., None], system.B, 0),
        C=np.where(alive[:, None, None, :], system.C, 0),
    )


def some_kept(system: DiagonalSystem, count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([np.sort(rng.choice(system.states, count, replace=False)) for _ in range(system.sets)])


def rebuilt(
    family: Family,
    arrays: Arrays,
    config: Mapping[str, Any],
    reductions: Sequence[Reduction],
    size: int | None = None,
) -> Arrays:
    """The checkpoint with every layer rebuilt; `size` pads all layers to one state count."""
    new: dict[str, np.ndarray | None] = {}
    for layer, reduction in zip(layers_of(family, arrays, config), reductions, strict=True):
        count = reduction.kept.shape[1] if size is None else size
        new.update(family.rebuild(layer, config, arrays.__getitem__, reduction, count))
    for name, array in new.items():
        assert array is None or array.dtype == arrays[name].dtype, name
        assert array is None or array.flags.c_contiguous, name
    return updated(arrays, new)


def pruned(family: Family, arrays: Arrays, config: Mapping[str, Any], count: int, seed: int = 0) -> Arrays:
    """The checkpoint with `count` states kept in every layer, a plain gather."""
    systems = systems_of(family, arrays, config)
    kept = [some_kept(system, count, seed + i) for i, system in enumerate(systems)]
    return rebuilt(family, arrays, config, [Reduction(k, keep(s, k)) for s, k in zip(systems, kept)])


def single(system: DiagonalSystem) -> DiagonalSystem:
    """The same system in float32 and complex64, as forward passes use it."""
    real = {name: getattr(system, name).astype(np.complex64) for name in ("poles", "B", "C")}
    return system.replace(**real, D=None if system.D is None else system.D.astype(np.float32))


def forward_of(
    family: Family, arrays: Arrays, config: Mapping[str, Any], x: np.ndarray, lengths: np.ndarray | None = None
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Outputs and layer inputs of the family's own architecture."""
    import jax

    import lastcli.engine.pytrees  # noqa: F401 (lets systems be arguments of compiled functions)

    forward = family.forward(infos(arrays), config, layers_of(family, arrays, config))
    assert forward is not None
    systems = [single(system) for system in systems_of(family, arrays, config)]
    params = {name: arrays[name] for name in forward.params}
    outputs, inputs = jax.jit(forward.apply)(params, systems, x, lengths)
    return np.asarray(outputs), inputs
