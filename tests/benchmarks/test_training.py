"""Initialisation, optimiser groups and the training loop."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from benchmarks.reproduce.checkpoints import save
from benchmarks.reproduce.initialisation import hippo_normal, initial_variables
from benchmarks.reproduce.loop import Trainer, evaluate, module
from benchmarks.reproduce.optimiser import groups, optimiser
from benchmarks.reproduce.settings import PAPER, SMALL, Architecture, Recipe, Setting
from benchmarks.reproduce.splits import Part, Splits

TINY = Setting(Architecture(1, 8, 16, 2), Recipe(epochs=6, batch=10, ssm_lr=4e-3, lr_factor=6))


@pytest.fixture(autouse=True, scope="module")
def _promotion_as_optax_needs_it():
    """Optax's schedules multiply a rate by an int32 count of steps."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def hippo_by_definition(n: int) -> np.ndarray:
    """HiPPO-LegS entry by entry (arXiv 2008.07669, theorem 2)."""
    a = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i > j:
                a[i, j] = -np.sqrt((2 * i + 1) * (2 * j + 1))
            elif i == j:
                a[i, j] = -(i + 1)
    return a


def two_classes() -> Splits:
    """Sequences of 12 noisy steps whose class is the sign of their slope."""
    draw = np.random.default_rng(0)

    def part(count: int) -> Part:
        y = np.arange(count) % 2
        slope = np.where(y == 1, 1.0, -1.0)[:, None] * np.linspace(-1, 1, 12)
        return Part((slope + 0.3 * draw.standard_normal((count, 12)))[..., None].astype(np.float32), y.astype(np.int32))

    return Splits("slopes", part(60), part(20), part(20), part(40), features=1, outputs=2)


class TestInitialisation:
    @pytest.mark.parametrize("n", [4, 16])
    def test_eigenvalues_of_the_normal_part(self, n: int) -> None:
        p = np.sqrt(np.arange(n) + 0.5)
        normal = hippo_by_definition(n) + np.outer(p, p)
        eigenvalues, vectors = hippo_normal(n)
        np.testing.assert_allclose(normal @ vectors, vectors * eigenvalues, atol=1e-9)
        np.testing.assert_allclose(eigenvalues.real, -0.5)

    def test_stored_pairs_rebuild_the_real_system(self) -> None:
        """2·Re over the stored half equals the undiagonalised real system: B is V⁻¹ of a real matrix."""
        architecture = Architecture(1, 3, 16, 2)
        layer = initial_variables(architecture, 1, 2, seed=0)["params"]["encoder"]["layers_0"]["seq"]
        b = layer["B"][..., 0] + 1j * layer["B"][..., 1]
        eigenvalues, vectors = hippo_normal(8)
        stored = layer["Lambda_re"] + 1j * layer["Lambda_im"]
        np.testing.assert_allclose(stored, np.tile(eigenvalues[:4], 2), rtol=1e-5)
        # V [b; conj b] is real up to the phases that tie each eigenvector to its conjugate: its Gram matrix is.
        real = 2 * (vectors[:, :4] @ b[:4]).real
        assert real.shape == (8, 3)
        np.testing.assert_allclose(vectors[:, :4].conj().T @ real, b[:4], atol=1e-5)

    def test_shapes_statistics_and_ranges(self) -> None:
        architecture = Architecture(1, 64, 64, 1, dt_min=1e-3, dt_max=1e-1)
        variables = initial_variables(architecture, 5, 3, seed=1)
        layer = variables["params"]["encoder"]["layers_0"]["seq"]
        assert layer["B"].shape == (32, 64, 2)
        assert layer["C"].shape == (64, 32, 2)
        # E|b|² = fan⁻¹ = 1/64 for a unitary change of basis; C is complex before V, so twice that.
        assert np.isclose((layer["B"] ** 2).sum(-1).mean(), 1 / 64, rtol=0.1)
        assert np.isclose((layer["C"] ** 2).sum(-1).mean(), 2 / 64, rtol=0.1)
        assert (layer["log_step"] >= np.log(1e-3)).all()
        assert (layer["log_step"] <= np.log(1e-1)).all()
        assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(variables))

    @pytest.mark.parametrize(
        "architecture",
        [
            TINY.model,
            Architecture(1, 8, 8, 1, "full_glu", conj_sym=False, norm="layer", prenorm=False),
            Architecture(1, 8, 8, 1, "gelu", clip_eigs=True, discretization="bilinear"),
        ],
    )
    def test_tree_is_the_one_of_the_module(self, architecture: Architecture) -> None:
        splits = two_classes()
        built = module(Setting(architecture, TINY.recipe), splits)
        wanted = jax.eval_shape(built.init, jax.random.key(0), splits.test.inputs()[:1])
        found = initial_variables(architecture, 1, 2, 0)
        assert jax.tree.map(np.shape, found) == jax.tree.map(
            lambda leaf: leaf.shape, {name: wanted[name] for name in ("params", "batch_stats") if name in wanted}
        )


class TestOptimiser:
    def test_groups(self) -> None:
        params = initial_variables(TINY.model, 1, 2, 0)["params"]
        layer = groups(params, decay_b=False)["encoder"]["layers_0"]
        assert {name for name, group in layer["seq"].items() if group == "ssm"} == {
            "Lambda_re",
            "Lambda_im",
            "B",
            "log_step",
        }
        assert set(layer["norm"].values()) == {"ssm"}
        assert layer["out2"]["kernel"] == "regular"
        assert groups(params, decay_b=True)["encoder"]["layers_0"]["seq"]["B"] == "regular"

    def test_weight_decay_and_rates(self) -> None:
        """With zero gradients only decay moves: by rate·decay, on the regular group alone."""
        recipe = Recipe(epochs=4, ssm_lr=0.01, lr_factor=3, weight_decay=0.5, warmup=1)
        transform = optimiser(recipe, steps_per_epoch=2)
        params = {"B": np.ones(1, np.float32), "kernel": np.ones(1, np.float32)}
        state = transform.init(params)
        moved = []
        for _ in range(8):
            updates, state = transform.update(jax.tree.map(np.zeros_like, params), state, params)
            assert float(updates["B"][0]) == 0
            moved.append(-float(updates["kernel"][0]))
        # Linear from peak/2 to the peak in two steps, then half a cosine over six.
        peak = 0.03 * 0.5
        expected = [peak / 2, 3 * peak / 4, *(peak * 0.5 * (1 + np.cos(np.pi * k / 6)) for k in range(6))]
        np.testing.assert_allclose(moved, expected, rtol=1e-4)


@pytest.fixture(scope="module")
def trained() -> tuple[Splits, dict, list[str]]:
    """A tiny model, trained in two chunks of one compiled program."""
    lines: list[str] = []
    splits = two_classes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.reproduce.loop.CHUNK", 18)
        variables = Trainer(TINY, splits, 0, report=lines.append).train()
    return splits, jax.device_get(variables), lines


class TestTrainer:
    def test_learns(self, trained: tuple[Splits, dict, list[str]]) -> None:
        splits, variables, lines = trained
        assert evaluate(TINY, splits, variables, "test") >= 0.9
        statistics = variables["batch_stats"]["encoder"]["layers_0"]["norm"]
        assert np.abs(statistics["mean"]).max() > 0
        assert "36/36" in lines[-1]

    def test_resumed_run_gives_the_same_model(
        self, trained: tuple[Splits, dict, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        splits, variables, _ = trained
        monkeypatch.setattr("benchmarks.reproduce.loop.CHUNK", 18)
        Trainer(TINY, splits, 0, tmp_path, report=lambda line: None).train(stop_after=18)
        lines: list[str] = []
        resumed = Trainer(TINY, splits, 0, tmp_path, report=lines.append).train()
        assert "resuming at step 18" in lines[0]
        jax.tree.map(np.testing.assert_array_equal, variables, jax.device_get(resumed))

    def test_state_of_another_setting_is_not_taken_up(self, tmp_path: Path) -> None:
        splits = two_classes()
        trainer = Trainer(TINY, splits, 0, tmp_path, report=lambda line: None)
        trainer._keep({**trainer.initial_state(), "step": 7})
        other = Trainer(TINY, splits, 1, tmp_path, report=lambda line: None)
        assert other._restored(other.initial_state())["step"] == 0
        assert trainer._restored(trainer.initial_state())["step"] == 7

    @pytest.mark.parametrize("name", ["model.safetensors", "model-orbax"])
    def test_checkpoints_are_read_by_last(
        self, trained: tuple[Splits, dict, list[str]], tmp_path: Path, name: str
    ) -> None:
        import lastcli

        splits, variables, _ = trained
        description = TINY.model.description("classification")
        assert save(tmp_path / name, variables, description) > 0
        splits.test.save(tmp_path / "test.npz")
        result = lastcli.evaluate(tmp_path / name, data=tmp_path / "test.npz")
        assert result.value == evaluate(TINY, splits, variables, "test")
        found = lastcli.inspect(tmp_path / name)
        assert {key: found.config[key].value for key in description if key != "family"} == {
            key: value for key, value in description.items() if key != "family"
        }
        assert found.config["discretization"].source in ("file", "sidecar")


class TestSettings:
    def test_stated_sizes(self) -> None:
        assert PAPER["listops"].model.stored == 8
        assert (PAPER["pathfinder"].model.layers, PAPER["pathfinder"].model.stored) == (6, 128)
        assert PAPER["smnist"].model.stored == 64
        assert json.dumps(PAPER["smnist"].model.description("classification"))

    def test_blocks_divide_states(self) -> None:
        for setting in [*PAPER.values(), *SMALL.values()]:
            assert setting.model.ssm_size % (2 * setting.model.blocks) == 0
