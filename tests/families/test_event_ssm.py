"""Event-SSM against a plain recurrence with a time of its own for every event."""

import jax
import numpy as np
import pytest

import lastcli
from lastcli import containers
from lastcli.containers.base import TensorSource
from lastcli.engine.system import Reduction
from lastcli.errors import InputError, UnsupportedModelError
from lastcli.families import detect
from lastcli.families.base import Layer
from lastcli.families.event_ssm.family import EventSSM
from lastcli.families.event_ssm.names import around, place_of
from tests.builders.event_ssm import event_checkpoint
from tests.builders.named import infos
from tests.families.rebuilding import (
    config_of,
    forward_of,
    keep,
    masked,
    pruned,
    rebuilt,
    single,
    systems_of,
)

FAMILY = EventSSM()
RULES = ("async", "dirac", "zoh")


def checkpoint(seed=0, **options):
    return event_checkpoint(np.random.default_rng(seed), **options)


def layer(t, path, config, u, times, stride):
    """u (L, H_in), times (L,) -> (L // stride, H_out), and the pooled input."""
    p = {name.removeprefix(path): v.astype(float) for name, v in t.items() if name.startswith(path)}
    a = np.minimum(p["Lambda_re"], -1e-4) if config["clip_eigs"] else p["Lambda_re"]
    a = a + 1j * p["Lambda_im"]
    step = config["step_rescale"] * np.exp(p["log_step"][:, 0])
    B, C = p["B"] @ np.array([1, 1j]), p["C"] @ np.array([1, 1j])
    x, rows = np.zeros(len(a)), []
    for k in range(len(u)):
        gain = {
            "async": (np.exp(a * step) - 1) / a,
            "dirac": 1.0,
            "zoh": (np.exp(a * step * times[k]) - 1) / a,
        }[config["discretization"]]
        x = np.exp(a * step * times[k]) * x + gain * (B @ u[k])
        rows.append((2 if config["conj_sym"] else 1) * (C @ x).real)
    D = p["D"] if p["D"].ndim == 2 else np.diag(p["D"])
    return np.stack(rows)[: len(u) // stride * stride : stride] + pooled(u, times, stride, config) @ D.T


def pooled(x, times, stride, config):
    groups = [slice(k, k + stride) for k in range(0, len(x) // stride * stride, stride)]
    if stride == 1 or config["pooling_mode"] == "last":
        return np.stack([x[g][0] for g in groups])
    weight = [times[g] + 1e-6 if config["pooling_mode"] == "timepool" else np.ones(stride) for g in groups]
    return np.stack([w @ x[g] / w.sum() for g, w in zip(groups, weight)])


def reference(t, config, tokens, times, length):
    """The published classifier for one example."""
    dense = lambda path, v: v @ t[f"params/{path}/kernel"] + t[f"params/{path}/bias"]  # noqa: E731
    h = t["params/encoder/encoder/embedding"].astype(float)[tokens]

    def norm(path, v):
        if config["norm"] == "batch":
            mean, var = (t[f"model_state/batch_stats/{path}/BatchNorm_0/{leaf}"] for leaf in ("mean", "var"))
            z, kind = (v - mean) / np.sqrt(var + 1e-5), "BatchNorm_0"
        else:
            z, kind = (v - v.mean(1, keepdims=True)) / np.sqrt(v.var(1, keepdims=True) + 1e-6), "LayerNorm_0"
        return z * t[f"params/{path}/{kind}/scale"] + t[f"params/{path}/{kind}/bias"]

    places = [(s, i) for s in (0, 1) for i in (0, 1)]
    for stage, i in places:
        path, stride = f"encoder/stages_{stage}/SequenceLayer_{i}", config["pooling_stride"] if i == 0 else 1
        if f"params/{path}/Dense_0/bias" not in t:
            continue
        u = norm(path, h) if config["prenorm"] else h
        y = layer(t, f"params/{path}/S5SSM_0/", config, u, times, stride)
        gelu = y / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        y = y * (1 + np.tanh(dense(f"{path}/Dense_0", gelu) / 2)) / 2
        skip = pooled(h, times, stride, config)
        times = times[: len(times) // stride * stride].reshape(-1, stride).sum(1)
        h = y + (dense(f"{path}/Dense_1", skip) if f"params/{path}/Dense_1/kernel" in t else skip)
        h = h if config["prenorm"] else norm(path, h)
    count = length // config["pooling_stride"] ** 2
    if config["mode"] == "last":
        return dense("decoder", h[-1])
    if config["mode"] == "timepool":
        return dense("decoder", (h * (times[:, None] + 1e-6))[:count].sum(0) / times.sum())
    return dense("decoder", h[:count].mean(0))


def events(seed=5, n=3, length=17):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 7, (n, length)), rng.uniform(0.2, 1.5, (n, length)), np.array([17, 12, 9])[:n]


MODELS = [
    {"discretization": "async", "pooling_stride": 2, "pooling_mode": "avgpool"},
    {"discretization": "zoh", "pooling_stride": 2, "pooling_mode": "timepool", "mode": "timepool", "clip_eigs": True},
    {"discretization": "dirac", "prenorm": False, "mode": "last", "conj_sym": True, "step_rescale": 0.5},
]


@pytest.mark.parametrize("model", MODELS)
def test_events_with_their_own_times(model):
    prenorm = model.get("prenorm", True)
    layers = 2 if model["discretization"] == "async" else 1
    arrays = checkpoint(norm="layer" if prenorm else "batch", prenorm=prenorm, layers=layers)
    config = config_of(FAMILY, arrays, timesteps=True, timestep=0.25, **model)
    tokens, times, lengths = events()
    x = np.stack([tokens, times], axis=-1).astype("f4")
    compact = [pruned(FAMILY, arrays, config, 3)] if model["discretization"] == "zoh" else []
    for t in (arrays, *compact):
        y, inputs = forward_of(FAMILY, t, config, x, lengths)
        expected = [reference(t, config, *row) for row in zip(tokens, x[..., 1].astype(float), lengths)]
        np.testing.assert_allclose(y, expected, rtol=2e-4, atol=2e-4)
    if layers == 2:
        assert [u.shape[1:] for u in inputs] == [(17, 3), (8, 3), (8, 3), (4, 6)]


def test_regular_events_need_no_times():
    arrays = checkpoint(layers=1)
    config = config_of(FAMILY, arrays, timestep=0.7, pooling_stride=2, pooling_mode="last")
    tokens, _, lengths = events()
    y, _ = forward_of(FAMILY, arrays, config, tokens.astype("i4"), lengths)
    expected = [reference(arrays, config, row, np.full(17, 0.7), length) for row, length in zip(tokens, lengths)]
    np.testing.assert_allclose(y, expected, rtol=2e-4, atol=2e-4)


def test_masked_states_stay_silent_between_irregular_events():
    from lastcli.families.event_ssm.model import irregular

    arrays = checkpoint()
    system = systems_of(FAMILY, arrays, config_of(FAMILY, arrays, discretization="zoh"))[3]
    kept = np.array([[1, 4]])
    rng = np.random.default_rng(0)
    u, ratio = rng.normal(size=(2, 9, 6)).astype("f4"), rng.uniform(0, 2, (2, 9)).astype("f4")
    run = jax.jit(irregular, static_argnames="rule")
    cut, silent = (run(single(s), u, ratio, rule="zoh") for s in (keep(system, kept), masked(system, kept)))
    np.testing.assert_allclose(silent, cut, rtol=1e-5, atol=1e-6)
    assert np.isfinite(silent).all()


@pytest.mark.parametrize("rule", RULES)
def test_new_systems_come_back_in_every_stage(rule):
    arrays = checkpoint()
    config = config_of(FAMILY, arrays, discretization=rule, timestep=0.5, pooling_stride=2, clip_eigs=True)
    systems = systems_of(FAMILY, arrays, config)
    assert [(s.states, s.inputs, s.outputs, s.feedthrough) for s in systems] == [
        (4, 3, 3, "diagonal"), (4, 3, 3, "diagonal"), (6, 3, 6, "dense"), (6, 6, 6, "diagonal")
    ]  # fmt: skip
    made = []
    for s in systems:
        small = keep(s, np.array([[0, 1]]))
        # the second pole is too slow for the clipped eigenvalues at its present step
        poles = np.array([[0.3 - 0.4j, 1 - 1e-6]])
        made.append(Reduction(np.array([[0, 1]]), small.replace(poles=poles, B=small.B * 3, D=2 * s.D), "all"))
    again = systems_of(FAMILY, rebuilt(FAMILY, arrays, config, made, size=3), config)
    for s, reduction in zip(again, made):
        for name in ("poles", "B", "C", "D"):
            wanted = getattr(reduction.system, name)
            found = {"poles": s.poles[:, :2], "B": s.B[:, :2], "C": s.C[..., :2], "D": s.D}[name]
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_time_between_inputs_grows_with_every_pooling():
    arrays = checkpoint()
    config = config_of(FAMILY, arrays, timestep=0.5, pooling_stride=4)
    layers = FAMILY.layers(infos(arrays), config)
    assert [FAMILY.time(layer, config) for layer in layers] == [0.5, 2, 2, 8]


def test_recognised_before_s5_and_told_by_its_norm():
    for norm in ("batch", "layer"):
        tensors = infos(checkpoint(norm=norm))
        assert detect(tensors).name == "event_ssm"
        assert FAMILY.infer(tensors) == {"norm": norm}
    bare = {name: v for name, v in checkpoint().items() if "S5SSM_0" in name}
    assert detect(infos(bare)).name == "event_ssm"
    config = config_of(FAMILY, bare)
    assert FAMILY.forward(infos(bare), config, FAMILY.layers(infos(bare), config)) is None


def test_poles_that_turn_too_far_are_refused_for_irregular_events():
    arrays = checkpoint()
    name = "params/encoder/stages_1/SequenceLayer_0/S5SSM_0/Lambda_im"
    arrays[name][2] = 500.0
    config = config_of(FAMILY, arrays, timesteps=True)
    with pytest.raises(
        UnsupportedModelError, match=r"stages_1/SequenceLayer_0/S5SSM_0: state 2 turns by .* timestep below"
    ):
        systems_of(FAMILY, arrays, config)
    assert len(systems_of(FAMILY, arrays, {**config, "timesteps": False})) == 4


def test_the_limit_that_is_named_is_that_of_every_layer():
    arrays = checkpoint()
    arrays["params/encoder/stages_0/SequenceLayer_1/S5SSM_0/Lambda_im"][0] = 90.0
    arrays["params/encoder/stages_1/SequenceLayer_1/S5SSM_0/Lambda_im"][1] = 5000.0
    config = config_of(FAMILY, arrays, timesteps=True)
    with pytest.raises(UnsupportedModelError, match=r"timestep below (\S+), the smallest limit of any layer") as raised:
        systems_of(FAMILY, arrays, config)
    limit = float(str(raised.value).split("timestep below ")[1].split(",")[0])
    assert len(systems_of(FAMILY, arrays, {**config, "timestep": limit})) == 4
    with pytest.raises(UnsupportedModelError):
        systems_of(FAMILY, arrays, {**config, "timestep": 1.02 * limit})


def test_stages_that_expand_their_states_keep_the_ratio(tmp_path):
    """state_expansion_factor 2: upstream's constructor takes one size, and gives stage s 2^s times that."""
    arrays = event_checkpoint(np.random.default_rng(0), states=(6, 12))
    source, small = tmp_path / "dvs.safetensors", tmp_path / "small.safetensors"
    containers.write(source, [TensorSource.of(name, a) for name, a in arrays.items()], metadata={})
    lastcli.prune(source, small, ratio=0.5, layout="proportional")
    assert [layer.states for layer in lastcli.open(small).layers] == [3, 3, 6, 6]
    assert lastcli.verify(source, small).ok


def test_missing_tensors_and_short_sequences_say_what_to_do():
    arrays = checkpoint(norm="batch")
    config = config_of(FAMILY, arrays, norm="layer")
    with pytest.raises(UnsupportedModelError, match=r"LayerNorm_0/scale is missing.*norm=layer"):
        forward_of(FAMILY, arrays, config, np.zeros((1, 17), "i4"))
    config = config_of(FAMILY, arrays, pooling_stride=4)
    with pytest.raises(InputError, match="layer 3 pools 4 events into one and gets 2"):
        forward_of(FAMILY, arrays, config, np.zeros((1, 9), "i4"))
    del arrays["params/encoder/stages_0/SequenceLayer_1/S5SSM_0/D"]
    with pytest.raises(UnsupportedModelError, match=r"event_ssm, but .*SequenceLayer_1/S5SSM_0/D"):
        detect(infos(arrays))


def test_weights_of_tokens_are_tokens_too():
    """What two models are compared on where there is no data: no whole numbers."""
    arrays = checkpoint()
    config = config_of(FAMILY, arrays)
    tokens = np.random.default_rng(1).integers(0, 7, (2, 9))
    one, _ = forward_of(FAMILY, arrays, config, tokens)
    other, _ = forward_of(FAMILY, arrays, config, np.eye(7, dtype="f4")[tokens])
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_only_the_model_itself_lies_around_the_layers():
    names = ("params/encoder/encoder/embedding", "params/decoder/bias", "params/head/kernel")
    moments = tuple(f"opt_state/mu/{name}" for name in names)
    found = around(dict.fromkeys((*names, *moments)))
    assert found == {"encoder/encoder/embedding": names[0], "decoder/bias": names[1]}
    with pytest.raises(UnsupportedModelError, match="blocks/0 is not a layer of a stage of Event-SSM"):
        place_of(Layer("blocks/0", 4, 1, {}))
