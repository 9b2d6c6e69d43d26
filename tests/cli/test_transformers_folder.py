"""The README's commands on a folder of transformers: text through its tokenizer, bfloat16, shards, an own head."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

pytestmark = pytest.mark.filterwarnings("ignore")

WORDS = [f"w{number}" for number in range(23)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A Mamba in bfloat16 with a head of its own, several shards and a tokenizer; text to calibrate and measure on."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    config = transformers.MambaConfig(
        vocab_size=23, hidden_size=16, num_hidden_layers=2, state_size=16, time_step_rank=2, initializer_range=0.3,
        pad_token_id=0, eos_token_id=1, bos_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    model = transformers.MambaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained("full", max_shard_size="4KB")
    tokenizer = {
        "version": "1.0",
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(WORDS)}, "unk_token": "w0"},
        "pre_tokenizer": {"type": "WhitespaceSplit"},
    }
    (tmp_path / "full" / "tokenizer.json").write_text(json.dumps(tokenizer))
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        (tmp_path / f"{name}.txt").write_text(" ".join(rng.choice(WORDS, 600)) + "\n")
    np.savez(tmp_path / "tokens.npz", x=rng.integers(0, 23, (6, 40), dtype=np.int32))
    return tmp_path / "full"


@pytest.mark.slow
def test_the_commands_of_the_readme(folder, tmp_path, last):
    flags = ("--calibration", "train.txt", "--states-multiple", "8")
    code, out, err = last("prune", "full", "--ratio", "0.4", *flags, "--out", "small", "--shard-size", "4KB", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["method"], found["refit"], found["layout"]) == ("obs", "calibrated", "uniform")
    assert [layer["states"] for layer in found["layers"]] == [8, 8]
    assert found["state_bytes_after"] < found["state_bytes_before"]
    assert any("kernels" in note for note in found["notes"])
    assert len([*(tmp_path / "small").glob("*.safetensors")]) > 1
    assert json.loads((tmp_path / "small" / "config.json").read_text())["state_size"] == 8

    code, out, err = last("sweep", "full", "--ratios", "0,0.5", "--methods", "contribution,obs", *flags[:2],
                          "--data", "test.txt", "--json")  # fmt: skip
    assert code == 0, err
    sweep = json.loads(out)
    assert sweep["metric"] == "perplexity"
    assert len(sweep["rows"]) == 4
    code, out, err = last("eval", "full", "--data", "tokens.npz", "--json")
    assert code == 0, err
    assert json.loads(out)["n"] == 6

    code, out, err = last("verify", "full", "small", "--json")
    assert code == 0, out
    code, out, err = last("bench", "full", "small", "--data", "tokens.npz")
    assert code == 0, err
    rows = [out.index(row) for row in ("state a sequence", "multiply-adds a step", "step of 1, median", "parameters")]
    assert rows == sorted(rows)

    model = transformers.MambaForCausalLM.from_pretrained("small").eval()
    assert model.config.state_size == 8
    assert model.dtype == torch.bfloat16
    assert not torch.equal(model.lm_head.weight, model.backbone.embeddings.weight)
    assert model.generate(torch.tensor([[3, 4, 5]]), max_new_tokens=2, do_sample=False).shape[1] > 3


def test_text_without_a_tokenizer(folder, last):
    (folder / "tokenizer.json").unlink()
    code, out, err = last("eval", "full", "--data", "test.txt")
    assert (code, out) == (3, "")
    assert "put the model's tokenizer.json beside its tensors" in err
