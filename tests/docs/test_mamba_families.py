"""The pages of Mamba and Mamba 2, followed on small folders of transformers, which loads the results and agrees."""

from __future__ import annotations

import numpy as np
import pytest

from tests.docs.blocks import follow
from tests.families.test_mamba_transformers import TOKENS, logits, made


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("tokens.npz", x=np.random.default_rng(1).integers(0, 23, (12, 16), dtype=np.int32))


def agrees(namespace, small):
    import torch

    model = namespace["model"]
    assert model.config.state_size == 4
    with torch.no_grad():
        wanted = model(torch.tensor(TOKENS.astype(np.int64)), use_cache=False).logits.numpy()
    np.testing.assert_allclose(logits(small), wanted, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_mamba(tmp_path, last):
    made("mamba", tmp_path / "mamba-130m")
    agrees(follow("docs/families/mamba.md", {}, last), "mamba-130m-n8")


@pytest.mark.slow  # the page is that of test_mamba with other names
@pytest.mark.filterwarnings("ignore")
def test_mamba2(tmp_path, last):
    made("mamba2", tmp_path / "mamba2-130m")
    agrees(follow("docs/families/mamba2.md", {}, last), "mamba2-130m-n64")
