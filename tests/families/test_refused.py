from __future__ import annotations

import numpy as np
import pytest

from lastcli.errors import ExitCode, UnsupportedModelError
from lastcli.families import detect
from lastcli.families.refused import REFUSED
from tests.builders import lru
from tests.builders.named import infos

# the state-sized parameters of each, in their own spelling
MODELS = {
    "time-varying LRU": [f"blocks.0.lru.{n}" for n in ("alpha_log", "delta_bias", "param_net.0.weight")],
    "zak": [f"blocks.0.lru.{n}" for n in ("nu_log", "theta_log", "gamma", "X2b", "D")],
    "L2RU": [f"blocks.0.lru.{n}" for n in ("X11_params", "X22_params", "X21", "C", "Dt", "Skew_params")],
    "is an L2RU": [f"blocks.0.lru.{n}" for n in ("X11", "X22", "X21", "Skew", "C", "Dt", "alpha", "epsilon")],
    "l2n": [f"blocks.0.lru.{n}" for n in ("S", "rho_raw", "theta", "K12_raw", "K21_raw", "K22_raw")],
    "l2-bounded": [f"blocks.0.lru.{n}" for n in ("S", "K_raw", "log_gamma")],
    "RTF": ["layers.0.kernel.ab", "layers.0.kernel.h_0"],
    "H3": ["backbone.layers.0.mixer.ssm_k_D", "backbone.layers.0.mixer.ssm_k_kernel.C"],
    "damped LinOSS": [f"blocks/0/layer/{n}" for n in ("A_diag", "G_diag", "dt", "B", "C", "D")],
}


@pytest.mark.parametrize("says", MODELS)
def test_each_is_refused_in_one_sentence_that_names_the_layer(says: str) -> None:
    arrays = {name: np.zeros((2, 2), "f4") for name in ["embedding.weight", *MODELS[says]]}
    with pytest.raises(UnsupportedModelError, match=says) as error:
        detect(infos(arrays))
    assert error.value.exit_code == ExitCode.UNSUPPORTED
    sentence = str(error.value)
    layer = MODELS[says][0].replace(".", "/").rpartition("/")[0]
    assert sentence.startswith(f"{layer} is ")
    assert sentence.count(". ") == 0
    assert sentence.endswith(".")


def test_every_entry_is_met_by_a_model() -> None:
    stored = [{name.replace(".", "/") for name in names} for names in MODELS.values()]
    for together, _ in REFUSED:
        assert any(all(any(name.endswith(f"/{leaf}") for name in names) for leaf in together) for names in stored)


def test_an_ordinary_lru_is_not_among_them() -> None:
    assert detect(infos(lru.torch_model(np.random.default_rng(0)))).name == "lru"
