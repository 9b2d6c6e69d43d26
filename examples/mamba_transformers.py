"""Mamba in transformers: a folder that `from_pretrained` loads, before and after.

    python examples/mamba_transformers.py

The language model is tiny and not trained, so what counts is how far its next-token probabilities move.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import MambaConfig, MambaForCausalLM
from transformers.utils import logging

import lastcli

VOCABULARY = 29


def tiny(folder: Path) -> None:
    """Two blocks with 8 states, saved as transformers saves them."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 8, "time_step_rank": 2}
    config = MambaConfig(
        vocab_size=VOCABULARY, initializer_range=0.3, pad_token_id=0, bos_token_id=0, eos_token_id=1, **sizes
    )
    MambaForCausalLM(config).save_pretrained(folder)


@torch.no_grad()
def probabilities(model: MambaForCausalLM, tokens: np.ndarray) -> torch.Tensor:
    """Of the next token, (n, L, V)."""
    return model.eval()(torch.from_numpy(tokens).long(), use_cache=False).logits.softmax(-1)


def main(folder: Path) -> None:
    """Save a model, halve its states with and without a refit, load both."""
    logging.disable_progress_bar()
    full = folder / "mamba-tiny"
    tiny(full)
    rng = np.random.default_rng(0)
    calibration = folder / "calibration.npz"
    np.savez(calibration, x=rng.integers(0, VOCABULARY, (16, 24), dtype=np.int32))
    tokens = rng.integers(0, VOCABULARY, (8, 24))

    before = probabilities(MambaForCausalLM.from_pretrained(full), tokens)
    for method in ("uniform-magnitude", "obs"):
        small = folder / f"mamba-tiny-{method}"
        result = lastcli.prune(full, small, method=method, ratio=0.5, calibration=str(calibration))
        model = MambaForCausalLM.from_pretrained(small)
        moved = 0.5 * (probabilities(model, tokens) - before).abs().sum(-1).mean()
        size = model.config.state_size
        print(f"{result.method} with refit {result.refit}: state_size 8 → {size}, probabilities moved by {moved:.4f}")
    print(f"state of one running sequence: {result.state_bytes_before} → {result.state_bytes_after} bytes")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
