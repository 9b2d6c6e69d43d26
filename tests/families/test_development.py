"""The family of docs/development.md, taken from the page as it stands and put into the registry by its one line."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

import lastcli.families
from lastcli import api, containers
from lastcli.containers.base import TensorSource
from lastcli.engine.system import Reduction
from lastcli.errors import UnsupportedModelError
from tests.builders.named import Arrays, infos
from tests.families.rebuilding import DOCS, config_of, forward_of, keep, layers_of, rebuilt, some_kept, systems_of

SIZES = (8, 6)  # states of each bank
WIDTHS = (3, 5, 2)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    text = (DOCS / "development.md").read_text(encoding="utf-8")
    section = text[text.index("## A family") : text.index("## A criterion")]
    module, line = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    folder = tmp_path / "families"
    folder.mkdir()
    (folder / "ema.py").write_text(module, encoding="utf-8")
    monkeypatch.setattr(lastcli.families, "__path__", [*lastcli.families.__path__, str(folder)])
    for name, entry in ast.literal_eval("{" + line.strip() + "}").items():
        monkeypatch.setitem(lastcli.families.FAMILIES, name, entry)
    lastcli.families.family_named.cache_clear()
    yield
    sys.modules.pop("lastcli.families.ema", None)
    lastcli.families.family_named.cache_clear()


def banks(seed: int = 0, dtype: str = "f4") -> Arrays:
    rng = np.random.default_rng(seed)
    arrays = {}
    for i, states in enumerate(SIZES):
        path = f"layers.{i}.ema."
        arrays[path + "decay"] = rng.uniform(-1, 3, states).astype(dtype)
        arrays[path + "input"] = rng.normal(size=(states, WIDTHS[i])).astype(dtype)
        arrays[path + "output"] = rng.normal(size=(WIDTHS[i + 1], states)).astype(dtype)
    return arrays


def numbers(arrays: Arrays, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poles, input and output of a bank, float64."""
    decay, into, out_of = (arrays[f"layers.{i}.ema.{role}"].astype(float) for role in ("decay", "input", "output"))
    return 1 / (1 + np.exp(-decay)), into, out_of


def recurrence(arrays: Arrays, x: np.ndarray) -> np.ndarray:
    """(n, L, m) → (n, L, p), one step after the other."""
    for i in range(len(arrays) // 3):
        decay, into, out_of = numbers(arrays, i)
        state, y = np.zeros((len(x), len(decay))), []
        for k in range(x.shape[1]):
            state = decay * state + x[:, k] @ into.T
            y.append(state @ out_of.T)
        x = np.stack(y, axis=1)
    return x


def on_disk(path: Path, arrays: Arrays) -> Path:
    containers.write(path, [TensorSource.of(name, array) for name, array in arrays.items()], metadata={})
    return path


def read(path: Path) -> Arrays:
    with containers.open_reader(path) as reader:
        return {name: np.asarray(reader.read(name)) for name in reader.tensors}


def test_the_forward_pass_is_the_recurrence() -> None:
    arrays = banks()
    family = lastcli.families.detect(infos(arrays))
    assert family.name == "ema"
    config = config_of(family, arrays)
    assert config == {"task": "regression"}
    assert [(layer.name, layer.states) for layer in layers_of(family, arrays, config)] == [
        ("layers.0.ema", 8),
        ("layers.1.ema", 6),
    ]
    x = np.random.default_rng(1).normal(size=(4, 20, 3)).astype("f4")
    got, inputs = forward_of(family, arrays, config, x)
    np.testing.assert_allclose(got, recurrence(arrays, x), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(inputs[0], x)


def test_masked_and_compacted_are_the_same_model() -> None:
    arrays = banks()
    family = lastcli.families.family_named("ema")
    config = config_of(family, arrays)
    systems = systems_of(family, arrays, config)
    kept = [some_kept(system, 3, i) for i, system in enumerate(systems)]
    small = rebuilt(family, arrays, config, [Reduction(k, keep(s, k)) for s, k in zip(systems, kept)])
    masked = dict(arrays)
    for i, alive in enumerate(kept):
        name = f"layers.{i}.ema.output"
        masked[name] = np.where(np.isin(np.arange(SIZES[i]), alive[0]), arrays[name], 0)
    x = np.random.default_rng(2).normal(size=(2, 15, 3)).astype("f4")
    np.testing.assert_allclose(recurrence(small, x), recurrence(masked, x), rtol=1e-12)


def test_new_poles_are_refused() -> None:
    arrays = banks()
    family = lastcli.families.family_named("ema")
    config = config_of(family, arrays)
    systems = systems_of(family, arrays, config)
    assert all(system.fixed_poles and system.real_readout for system in systems)
    moved = [Reduction(np.arange(system.states)[None], system, "all") for system in systems]
    with pytest.raises(UnsupportedModelError, match=r"layers\.0\.ema: a decay is real"):
        rebuilt(family, arrays, config, moved)


def test_wrong_shapes_are_named() -> None:
    arrays = banks()
    arrays["layers.1.ema.input"] = arrays["layers.1.ema.input"][:, :4]
    family = lastcli.families.family_named("ema")
    with pytest.raises(UnsupportedModelError, match=r"layers\.1\.ema\.input has shape \(6, 4\); expected \(6, 5\)"):
        family.layers(infos(arrays), {})


def test_score_is_the_largest_gain_of_every_state(tmp_path: Path) -> None:
    """LAST ranks by the H∞ norm: a real pole λ > 0 has its largest gain at ω = 0, |b||c|/(1 - λ)."""
    arrays = banks()
    result = api.score(on_disk(tmp_path / "m.safetensors", arrays), method="last")
    for i, layer in enumerate(result.layers):
        decay, into, out_of = numbers(arrays, i)
        gain = np.linalg.norm(into, axis=1) * np.linalg.norm(out_of, axis=0) / (1 - decay)
        np.testing.assert_allclose(layer.energy[0], gain**2, rtol=1e-6)


def test_prune_with_h2_writes_the_best_read_out_of_the_kept_states(tmp_path: Path) -> None:
    """The H2-optimal C solves C' P_kk = C P_:k with the Gramian P of the pair (decay, input)."""
    arrays = banks()
    path, out = on_disk(tmp_path / "m.safetensors", arrays), tmp_path / "small.safetensors"
    result = api.prune(path, out, ratio=0.5, method="last", refit="h2")
    small = read(out)
    assert sum(layer.states for layer in result.layers) == 7
    for i, layer in enumerate(result.layers):
        kept = list(layer.kept[0])
        for role in ("decay", "input"):
            name = f"layers.{i}.ema.{role}"
            np.testing.assert_array_equal(small[name], arrays[name][kept])
        decay, B, C = numbers(arrays, i)
        gramian = scipy.linalg.solve_discrete_lyapunov(np.diag(decay), B @ B.T)
        wanted = np.linalg.solve(gramian[np.ix_(kept, kept)], gramian[kept] @ C.T).T
        np.testing.assert_allclose(small[f"layers.{i}.ema.output"], wanted, rtol=1e-3, atol=1e-3)
    verified = api.verify(path, out)
    assert verified.ok, [check for check in verified.checks if not check.ok]


def test_sweep_measures_the_recurrence(tmp_path: Path) -> None:
    arrays = banks()
    path, out = on_disk(tmp_path / "m.safetensors", arrays), tmp_path / "small.safetensors"
    rng = np.random.default_rng(4)
    x = rng.normal(size=(12, 16, 3)).astype("f4")
    y = (recurrence(arrays, x) + 0.5 * rng.normal(size=(12, 16, 2))).astype("f4")
    np.savez(tmp_path / "data.npz", x=x, y=y)
    swept = api.sweep(path, ratios="0,0.5", methods="last", refit="h2", data=str(tmp_path / "data.npz"))
    api.prune(path, out, ratio=0.5, method="last", refit="h2")
    for row, model in zip(swept.rows, (arrays, read(out)), strict=True):
        error = np.square(recurrence(model, x) - y).mean()
        wanted = error if swept.metric == "mse" else np.sqrt(error)
        np.testing.assert_allclose(row.value, wanted, rtol=1e-4)
    assert swept.rows[1].value > swept.rows[0].value
