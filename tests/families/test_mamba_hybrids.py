"""Hybrids of transformers: their mixers are computed as transformers computes them, pruned, and loaded again."""

import numpy as np
import pytest

from lastcli import api
from lastcli.engine.engines import engine_of
from lastcli.errors import UnsupportedModelError
from lastcli.model.opening import open_checkpoint

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore")

COMMON = {
    "vocab_size": 23, "hidden_size": 16, "intermediate_size": 20, "num_attention_heads": 2, "num_key_value_heads": 2,
    "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
HEADS = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 2, "mamba_d_state": 8, "mamba_chunk_size": 8}
# transformers' name → its own sizes
EXACT = {
    "Bamba": {**HEADS, "num_hidden_layers": 2, "attn_layer_indices": [1]},
    "GraniteMoeHybrid": {**HEADS, "num_hidden_layers": 2, "layer_types": ["mamba", "attention"],
                         "shared_intermediate_size": 20, "num_local_experts": 0},
    "FalconH1": {**HEADS, "num_hidden_layers": 1, "mamba_d_ssm": 32, "head_dim": 8, "ssm_in_multiplier": 0.5,
                 "ssm_multipliers": [0.5, 0.6, 0.7, 0.8, 0.9]},
    "Zamba2": {"num_hidden_layers": 2, "layers_block_type": ["mamba", "hybrid"], "hybrid_layer_ids": [1],
               "mamba_ngroups": 2, "mamba_d_state": 8, "n_mamba_heads": 4, "chunk_size": 8, "num_mem_blocks": 1,
               "adapter_rank": 4, "time_step_min": 0.2},
    "NemotronH": {"layers_block_type": ["mamba", "mlp", "attention", "mamba"], "mamba_num_heads": 4,
                  "mamba_head_dim": 8, "n_groups": 2, "ssm_state_size": 8, "chunk_size": 8, "head_dim": 8,
                  "time_step_min": 0.2},
    "Zamba": {"num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "mamba_d_state": 8,
              "mamba_dt_rank": 2, "n_mamba_heads": 2},
}  # fmt: skip
INEXACT = {
    "Jamba": {"num_hidden_layers": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
              "expert_layer_offset": 1, "num_experts": 1, "num_experts_per_tok": 1, "mamba_d_state": 8,
              "mamba_dt_rank": 2},
    "FalconMamba": {"num_hidden_layers": 2, "state_size": 8, "time_step_rank": 2},
}  # fmt: skip


def made(name, folder):
    """A small random model in a folder."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**COMMON, **{**EXACT, **INEXACT}[name])
    getattr(transformers, f"{name}ForCausalLM")(config).save_pretrained(folder)
    return loaded(name, folder)


def loaded(name, folder):
    return getattr(transformers, f"{name}ForCausalLM").from_pretrained(folder).eval()


def answers_as(model, folder):
    """Every mixer of the folder on noise, beside transformers'."""
    checkpoint = open_checkpoint(folder)
    mixers = [module for module in model.modules() if hasattr(module, "A_log")]
    u = np.random.default_rng(0).standard_normal((2, 11, 16)).astype("f4")
    assert len(mixers) == len(checkpoint.layers) > 0
    for mixer, system in zip(mixers, checkpoint.systems, strict=True):
        with torch.no_grad():
            wanted = mixer(torch.tensor(u)).numpy()
        np.testing.assert_allclose(engine_of(system).output(system, u), wanted, atol=1e-4)


@pytest.mark.parametrize("name", EXACT)
def test_hybrids_are_scored_pruned_and_load_again(tmp_path, name):
    answers_as(made(name, tmp_path / "full"), tmp_path / "full")
    layer = api.inspect(tmp_path / "full").layers[0]
    assert layer.states == 8
    assert layer.inside["d_inner"] == 32
    for method in ("uniform-magnitude", "last", "random"):
        scores = api.score(tmp_path / "full", method=method).layers
        assert all(np.shape(scored.score) == (layer.sets, 8) for scored in scores)
    api.prune(tmp_path / "full", tmp_path / "small", ratio=0.5, method="uniform-magnitude")
    found = api.verify(tmp_path / "full", tmp_path / "small")
    assert found.ok, [check for check in found.checks if not check.ok]
    small = loaded(name, tmp_path / "small")
    answers_as(small, tmp_path / "small")
    assert small.generate(torch.tensor([[3, 4, 5]]), max_new_tokens=2, do_sample=False).shape == (1, 5)


@pytest.mark.parametrize("name", INEXACT)
def test_norms_over_the_states_are_scored_and_not_pruned(tmp_path, name):
    answers_as(made(name, tmp_path / "full"), tmp_path / "full")
    assert api.inspect(tmp_path / "full").layers[0].inside["dt_rank"] == 2
    assert api.score(tmp_path / "full", method="uniform-magnitude").layers
    with pytest.raises(UnsupportedModelError, match="--allow-inexact"):
        api.prune(tmp_path / "full", tmp_path / "small", ratio=0.5, method="uniform-magnitude")
    api.prune(tmp_path / "full", tmp_path / "small", ratio=0.5, method="uniform-magnitude", allow_inexact=True)
    answers_as(loaded(name, tmp_path / "small"), tmp_path / "small")
