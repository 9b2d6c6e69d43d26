"""Models of the S4 repository and of DSS against modules written from their definitions, one test an option."""

from __future__ import annotations

import numpy as np
import pytest

from lastcli.families import detect
from tests.builders.named import infos
from tests.families.rebuilding import forward_of

torch = pytest.importorskip("torch")

from tests.upstream.s4_models import CASES, PADDED, N, batch, made  # noqa: E402
from tests.upstream.s4_sequence import inputs_of  # noqa: E402


@pytest.mark.parametrize(("name", "padded"), [(name, name in PADDED) for name in CASES])
def test_forward_is_the_published_model(name: str, padded: bool) -> None:
    family, model, arrays, config = made(name)
    assert detect(infos(arrays)).name == family.name
    x, lengths = batch(model.shape, padded)
    with torch.no_grad():
        expected = model(x, lengths).numpy()
    outputs, inputs = forward_of(family, arrays, config, x, lengths)
    expected = expected if config["mode"] == "sequence" else expected.reshape(N, -1)
    np.testing.assert_allclose(outputs, expected, atol=1e-4)
    for got, seen in zip(inputs, inputs_of(model), strict=True):
        np.testing.assert_allclose(got, seen, atol=1e-4)
