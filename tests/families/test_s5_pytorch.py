"""s5-pytorch: native complex numbers, the whole spectrum, and the published block in plain PyTorch."""

import numpy as np
import pytest

from lastcli.engine.system import Reduction
from lastcli.errors import UnsupportedModelError
from lastcli.families import detect
from lastcli.families.s5_pytorch.family import S5Pytorch
from tests.builders.named import infos
from tests.builders.s5_pytorch import s5_torch_block, s5_torch_layer
from tests.families.rebuilding import config_of, forward_of, keep, pruned, rebuilt, systems_of

torch = pytest.importorskip("torch")

FAMILY = S5Pytorch()


def recurrence(t, prefix, u, rule="zoh"):
    """u (L, H) -> (L, H), one step at a time."""
    a, step = t[f"{prefix}Lambda"].astype(complex), np.exp(t[f"{prefix}log_step"].astype(float))
    B = t[f"{prefix}B"].astype(float) @ np.array([1, 1j])
    C = t[f"{prefix}C"].astype(complex)
    pole, gain = np.exp(a * step), (np.exp(a * step) - 1) / a
    if rule == "bilinear":
        pole, gain = (1 + a * step / 2) / (1 - a * step / 2), step / (1 - a * step / 2)
    forward, backward = [np.zeros(len(a))], [np.zeros(len(a))]
    for k in range(len(u)):
        forward.append(pole * forward[-1] + gain * (B @ u[k]))
        backward.append(pole * backward[-1] + gain * (B @ u[-1 - k]))
    x = np.stack(forward[1:])
    if C.shape[1] == 2 * len(a):
        x = np.concatenate([x, np.stack(backward[:0:-1])], axis=1)
    return (x @ C.T).real + t[f"{prefix}D"] * u


def block(t, prefix, x):
    """One published block over one sequence in PyTorch."""
    f = torch.nn.functional
    own = {name.removeprefix(prefix): torch.tensor(v) for name, v in t.items() if name.startswith(prefix)}
    norm = lambda name, v: f.layer_norm(v, v.shape[-1:], own[f"{name}.weight"], own[f"{name}.bias"])  # noqa: E731
    fx = norm("attn_norm", x)
    y = torch.tensor(recurrence(t, f"{prefix}s5.seq.", fx.double().numpy())).float()
    fx = norm("ff_norm", f.gelu(y) + fx)
    h = f.linear(fx, own["ff_enc.weight"])
    if h.shape[-1] == 2 * own["ff_dec.weight"].shape[1]:
        value, gate = h.chunk(2, dim=-1)
        h = value * f.gelu(gate)
    return f.linear(h, own["ff_dec.weight"]) + fx


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_layer_alone_equals_its_recurrence(rule, bidirectional):
    rng = np.random.default_rng(0)
    arrays = s5_torch_layer(rng, bidirectional=bidirectional)
    assert detect(infos(arrays)).name == "s5_pytorch"
    config = config_of(FAMILY, arrays, discretization=rule)
    assert config["bidirectional"] is bidirectional
    x = rng.normal(size=(2, 7, 4)).astype("f4")
    y, (u,) = forward_of(FAMILY, arrays, config, x)
    np.testing.assert_allclose(y, np.stack([recurrence(arrays, "seq.", row, rule) for row in x]), atol=1e-5)
    np.testing.assert_array_equal(u, x)


@pytest.mark.parametrize("glu", [True, False])
def test_a_stack_of_blocks_equals_pytorch_and_stays_so_when_compacted(glu):
    rng = np.random.default_rng(1)
    arrays = s5_torch_block(rng, "blocks.0.", glu=glu) | s5_torch_block(rng, "blocks.1.", states=6, glu=glu)
    config = config_of(FAMILY, arrays)
    x = rng.normal(size=(2, 7, 4)).astype("f4")
    for t in (arrays, pruned(FAMILY, arrays, config, 3)):
        y, _ = forward_of(FAMILY, t, config, x)
        expected = np.stack([block(t, "blocks.1.", block(t, "blocks.0.", torch.tensor(row))) for row in x])
        np.testing.assert_allclose(y, expected, atol=2e-5)


def test_blocks_with_something_around_them_have_no_known_forward_pass():
    arrays = s5_torch_block(np.random.default_rng(2)) | {"head.weight": np.zeros((2, 4), "f4")}
    tensors, config = infos(arrays), config_of(FAMILY, arrays)
    assert FAMILY.forward(tensors, config, FAMILY.layers(tensors, config)) is None


@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_and_new_systems_come_back(bidirectional):
    arrays = s5_torch_layer(np.random.default_rng(3), bidirectional=bidirectional)
    config = config_of(FAMILY, arrays, step_rescale=2.0)
    (system,) = systems_of(FAMILY, arrays, config)
    assert system.pairing == 1
    reduced = keep(system, np.array([[0, 1, 2]]))
    moved = reduced.replace(poles=reduced.poles * 0.9j, B=reduced.B * 2, C=reduced.C - 1, D=-reduced.D)
    made = Reduction(np.array([[0, 1, 2]]), moved, "all")
    (again,) = systems_of(FAMILY, rebuilt(FAMILY, arrays, config, [made], size=4), config)
    for name, last in (("poles", 3), ("C", 3), ("D", 4)):
        np.testing.assert_allclose(getattr(again, name)[..., :last], getattr(moved, name), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(again.B[:, :3], moved.B, rtol=2e-5, atol=1e-6)
    assert not again.C[..., 3:].any()
    assert np.abs(again.poles[:, 3]) < 1


def test_magnitudes_count_complex_parameters_by_their_modulus():
    arrays = s5_torch_layer(np.random.default_rng(4), bidirectional=True)
    config = config_of(FAMILY, arrays)
    (layer,) = FAMILY.layers(infos(arrays), config)
    own = [arrays["seq.Lambda"][1], arrays["seq.log_step"][1], arrays["seq.B"][1], arrays["seq.C"][:, [1, 6]]]
    expected = sum(float((np.abs(values.astype(complex)) ** 2).sum()) for values in own)
    assert FAMILY.magnitudes(layer, config, arrays.__getitem__)[0, 1] == pytest.approx(expected)


def test_exchanged_axes_and_missing_tensors_are_named():
    arrays = s5_torch_layer(np.random.default_rng(5))
    assert FAMILY.infer(infos(arrays)) == {"bidirectional": False}
    assert FAMILY.infer(infos({name: a for name, a in arrays.items() if name != "seq.C"})) == {}
    arrays["seq.C"] = arrays["seq.C"].T
    with pytest.raises(UnsupportedModelError, match=r"seq\.C has the shape \(5, 4\)"):
        FAMILY.layers(infos(arrays), config_of(FAMILY, arrays, bidirectional=False))
    del arrays["seq.B"]
    with pytest.raises(UnsupportedModelError, match=r"s5_pytorch, but .*missing: seq\.B"):
        detect(infos(arrays))
