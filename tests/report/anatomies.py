"""What the pictures of a report are drawn from, small and made up."""

from __future__ import annotations

import numpy as np

from lastcli.results import Anatomy, Costs, LayerAnatomy, Origin, SourceFile, SweepResult
from tests.report import samples

HOSTILE = 'a\x1b[2J</script><img src=x onerror=alert(1)>\u202e"&\u2066'


def anatomy(result: SweepResult, name: str = "encoder/layers_{}/seq", sets: int = 1) -> Anatomy:
    """Four layers of 32 states; every row keeps the first states of each."""
    generator = np.random.default_rng(1)
    layers = tuple(
        LayerAnatomy(
            name=name.format(i),
            states=32,
            sets=sets,
            poles=np.exp(-generator.random(32 * sets) + 1j * np.pi * generator.random(32 * sets)),
            energy=generator.random((sets, 32)),
        )
        for i in range(4)
    )
    kept = tuple(tuple(np.tile(np.arange(min(number, 32)), (sets, 1)) for number in row.layers) for row in result.rows)
    shown = result.rows.index(result.chosen) if result.chosen is not None else 0
    return Anatomy(
        layers=layers,
        energy_of="last",
        kept=kept,
        shown=shown,
        poles_after=tuple(layer.poles[: result.rows[shown].layers[i]] for i, layer in enumerate(layers)),
        before=Costs(bytes=182906, state_bytes=1024, multiply_adds=21152),
        costs=tuple(Costs(bytes=1000 * row.states, state_bytes=8 * row.states, multiply_adds=9) for row in result.rows),
    )


def sweep(methods: int = 2, name: str = "encoder/layers_{}/seq", sets: int = 1, **changes: object) -> SweepResult:
    """A sweep with its anatomy."""
    names = tuple(name.format(i) for i in range(4))
    bare = samples.sweep(methods, layer_names=names, **changes)
    return samples.sweep(methods, layer_names=names, anatomy=anatomy(bare, name, sets), **changes)


def origin() -> Origin:
    return Origin(
        command=("sweep", "my model.pth", "--ratios", "0.5"),
        recipe={"checkpoint": HOSTILE, "ratios": [0.5], "method": "last"},
        files=(SourceFile(role="checkpoint", path=HOSTILE, sha256="ab" * 32),),
        versions={"last": "0.1.0", "jax": "0.9"},
        moment="2026-01-01 00:00 UTC",
    )
