"""What `last` writes is what transformers loads: same logits, and it generates."""

import numpy as np
import pytest

from lastcli import api
from lastcli.evaluation.data import Split
from lastcli.evaluation.passes import model_outputs
from lastcli.model.opening import open_checkpoint

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOKENS = np.random.default_rng(0).integers(0, 23, (2, 17), dtype=np.int32)

MODELS = {
    "mamba": ("MambaConfig", "MambaForCausalLM", {"state_size": 8, "time_step_rank": 2}),
    "mamba2": ("Mamba2Config", "Mamba2ForCausalLM", {"state_size": 8, "num_heads": 4, "head_dim": 8, "n_groups": 2,
                                                      "chunk_size": 8}),
}  # fmt: skip


def made(name, folder, shards="2KB"):
    config, model, sizes = MODELS[name]
    torch.manual_seed(0)
    config = getattr(transformers, config)(
        vocab_size=23, hidden_size=16, num_hidden_layers=2, initializer_range=0.3, pad_token_id=0, eos_token_id=1,
        bos_token_id=0, tie_word_embeddings=True, **sizes,
    )  # fmt: skip
    getattr(transformers, model)(config).save_pretrained(folder, max_shard_size=shards)
    return folder


def loaded(name, folder):
    return getattr(transformers, MODELS[name][1]).from_pretrained(folder).eval()


def logits(folder):
    checkpoint = open_checkpoint(folder)
    forward = checkpoint.require_forward()
    return np.concatenate(list(model_outputs(forward, checkpoint.params, checkpoint.systems, Split(TOKENS))))


@pytest.fixture
def calibration(tmp_path):
    path = tmp_path / "calibration.npz"
    np.savez(path, x=np.random.default_rng(1).integers(0, 23, (12, 16), dtype=np.int32))
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("how", ["as it is", "uniform", "padded", "refitted"])
def test_transformers_loads_and_generates(tmp_path, calibration, name, how):
    folder = made(name, tmp_path / "full")
    if how != "as it is":
        more = {"calibration": calibration, "method": "obs"} if how == "refitted" else {"method": "global-magnitude"}
        layout = "padded" if how == "padded" else "uniform"
        api.prune(folder, tmp_path / "small", ratio=0.5, layout=layout, **more)
        found = api.verify(folder, tmp_path / "small")
        assert found.ok, [check for check in found.checks if not check.ok]
        folder = tmp_path / "small"
    model = loaded(name, folder)
    if how in ("uniform", "refitted"):
        assert model.config.state_size == 4
    with torch.no_grad():
        wanted = model(torch.tensor(TOKENS.astype(np.int64)), use_cache=False).logits.numpy()
        said = model.generate(torch.tensor(TOKENS[:1, :4].astype(np.int64)), max_new_tokens=3, do_sample=False)
    np.testing.assert_allclose(logits(folder), wanted, atol=1e-4)
    assert said.shape[1] > 4
