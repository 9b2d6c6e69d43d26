"""S5: recognition, options proven by tensors, shape checks, and going back from systems to tensors."""

import ml_dtypes
import numpy as np
import pytest

from lastcli.engine.system import Reduction
from lastcli.errors import UnsupportedModelError
from lastcli.families import detect
from lastcli.families.s5.family import S5
from tests.builders.named import infos, updated
from tests.builders.s5 import MODELS, s5_checkpoint, s5_config, s5_layer

FAMILY = S5()


def checkpoint(seed=0, **options):
    return s5_checkpoint(np.random.default_rng(seed), **options)


def one_layer(seed=1, states=5, dtype=np.float32, joint=False, **options):
    """(arrays, config, layer, system) of a file with a single bare layer."""
    config = s5_config(**options)
    layer = s5_layer(np.random.default_rng(seed), states, 4, config["bidirectional"], joint)
    arrays = {f"ssm/{role}": values.astype(dtype) for role, values in layer.items()}
    (found,) = FAMILY.layers(infos(arrays), config)
    return arrays, config, found, FAMILY.system(found, config, arrays.__getitem__)


def rebuilt(arrays, config, layer, reduction, size=None):
    size = size or reduction.kept.shape[1]
    new = FAMILY.rebuild(layer, config, arrays.__getitem__, reduction, size)
    after = updated(arrays, new)
    (found,) = FAMILY.layers(infos(after), config)
    return after, FAMILY.system(found, config, after.__getitem__)


@pytest.mark.parametrize(
    ("root", "separator"), [("params/", "/"), ("", "."), ("params/", "."), ("params/params/", "/")]
)
def test_recognised_under_every_root_and_separator(root, separator):
    arrays = checkpoint(root=root, separator=separator, sizes=(2,) * 11)
    tensors = infos(arrays)
    assert detect(tensors).name == "s5"
    layers = FAMILY.layers(tensors, s5_config())
    assert len(layers) == 11
    assert "layers_2" in layers[2].name  # not layers_10
    assert FAMILY.forward(tensors, s5_config(), layers).features == 3


def test_optimizer_moments_are_not_layers():
    arrays = checkpoint()
    moments = {f"opt_state/0/mu/{name.removeprefix('params/')}": values for name, values in arrays.items()}
    assert len(FAMILY.match(infos(arrays | moments)).layers) == 2


def test_two_models_in_one_file_are_refused():
    arrays = checkpoint()
    average = {name.replace("params/", "ema_params/"): values for name, values in arrays.items()}
    with pytest.raises(UnsupportedModelError, match=r"2 models .*ema_params/encoder"):
        FAMILY.layers(infos(arrays | average), s5_config())


def test_a_layer_per_channel_is_not_s5():
    per_channel = {
        "layers_0/seq/Lambda_re": np.zeros((4, 3)), "layers_0/seq/Lambda_im": np.zeros((4, 3)),
        "layers_0/seq/C": np.zeros((4, 3, 2)), "layers_0/seq/D": np.zeros(4), "layers_0/seq/log_step": np.zeros((1, 3)),
    }  # fmt: skip
    assert FAMILY.match(infos(per_channel)).found == 0


def test_missing_tensors_are_named():
    arrays = checkpoint()
    del arrays["params/encoder/layers_1/seq/B"], arrays["params/encoder/layers_1/seq/C"]
    match = FAMILY.match(infos(arrays))
    assert match.missing == ("params/encoder/layers_1/seq/B", "params/encoder/layers_1/seq/C")
    with pytest.raises(UnsupportedModelError, match="layers_1/seq/B"):
        detect(infos(arrays))


@pytest.mark.parametrize(
    ("name", "proven"),
    [
        ("plain", {"bidirectional": False, "norm": "batch", "activation": "full_glu"}),
        ("padded_both_ways", {"bidirectional": True, "norm": "batch"}),
        ("joint_full_spectrum", {"bidirectional": True, "norm": "layer"}),
        ("regression", {"bidirectional": False, "norm": "layer", "activation": "gelu"}),
        ("retrieval", {"bidirectional": False, "norm": "batch", "task": "retrieval"}),
    ],
)
def test_what_tensors_prove(name, proven):
    assert FAMILY.infer(infos(checkpoint(**MODELS[name]))) == proven


def test_a_bare_tree_does_not_prove_the_norm():
    assert "norm" not in FAMILY.infer(infos(checkpoint(root="", norm="layer")))


@pytest.mark.parametrize("states", [4, 8, 2])
def test_equal_sizes_do_not_confuse_the_axes(states):
    # P = H, P = 2H and 2P = H with both ways of storing two directions
    for joint in (False, True):
        _, _, layer, system = one_layer(states=states, bidirectional=True, joint=joint)
        assert (layer.states, system.directions, system.inputs) == (states, 2, 4)
    _, _, layer, system = one_layer(states=states)
    assert (layer.states, system.directions) == (states, 1)


@pytest.mark.parametrize("role", ["B", "C", "D", "log_step", "Lambda_im"])
def test_contradicting_shapes_name_the_tensor(role):
    arrays, config, _, _ = one_layer()
    arrays[f"ssm/{role}"] = np.swapaxes(arrays[f"ssm/{role}"], 0, 1) if role in "BC" else np.zeros((3, 3, 3))
    with pytest.raises(UnsupportedModelError, match=f"ssm/{role} has the shape"):
        FAMILY.layers(infos(arrays), config)


@pytest.mark.parametrize(
    ("options", "removed", "message"),
    [
        ({"norm": "batch"}, "batch_stats/encoder/layers_1/norm/mean", "norm=layer"),
        ({"activation": "half_glu1"}, None, "out1.*activation=half_glu1"),
        ({"activation": "gelu"}, None, "activation=gelu"),
        ({"task": "retrieval"}, None, "decoder/layer1/kernel is missing.*task=retrieval"),
    ],
)
def test_a_description_against_the_tensors_is_refused(options, removed, message):
    arrays = checkpoint(activation="full_glu")
    arrays.pop(removed, None)
    config = s5_config(activation="full_glu") | options
    layers = FAMILY.layers(infos(arrays), config)
    with pytest.raises(UnsupportedModelError, match=message):
        FAMILY.forward(infos(arrays), config, layers)


def test_layers_without_the_published_model_have_no_forward_pass():
    arrays, config, layer, _ = one_layer()
    assert FAMILY.forward(infos(arrays), config, [layer]) is None


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("form", ["one", "two", "joint"])
def test_a_plain_gather_keeps_the_bits(form, dtype):
    arrays, config, layer, system = one_layer(dtype=dtype, bidirectional=form != "one", joint=form == "joint")
    kept = np.array([[0, 3, 4]])
    reduced = system.replace(poles=system.poles[:, kept[0]], B=system.B[:, kept[0]], C=system.C[..., kept[0]])
    after, again = rebuilt(arrays, config, layer, Reduction(kept, reduced, "none"))
    for name in ("poles", "B", "C", "D"):
        np.testing.assert_array_equal(getattr(again, name), getattr(reduced, name))
    assert {values.dtype for values in after.values()} == {np.dtype(dtype)}
    assert after["ssm/log_step"].tobytes() == arrays["ssm/log_step"][kept[0]].tobytes()

    _, padded = rebuilt(arrays, config, layer, Reduction(kept, reduced, "none"), size=4)
    np.testing.assert_array_equal(padded.poles[:, :3], reduced.poles)
    np.testing.assert_array_equal(padded.C[..., :3], reduced.C)
    assert np.abs(padded.poles[:, 3:]).max() < 0.5
    assert not padded.B[:, 3:].any()
    assert not padded.C[..., 3:].any()


@pytest.mark.parametrize("form", ["one", "two", "joint"])
def test_a_new_read_out_leaves_the_dynamics(form):
    arrays, config, layer, system = one_layer(bidirectional=form != "one", joint=form == "joint")
    kept = np.array([[1, 2]])
    rng = np.random.default_rng(3)
    C = rng.normal(size=(1, system.directions, 4, 2)) + 1j * rng.normal(size=(1, system.directions, 4, 2))
    D = np.diag(rng.normal(size=4))[None]
    reduced = system.replace(poles=system.poles[:, kept[0]], B=system.B[:, kept[0]], C=C, D=D)
    after, again = rebuilt(arrays, config, layer, Reduction(kept, reduced, "readout"), size=3)
    np.testing.assert_array_equal(again.poles[:, :2], reduced.poles)
    np.testing.assert_allclose(again.C[..., :2], C, rtol=1e-6)
    np.testing.assert_allclose(again.D, D, rtol=1e-6)
    np.testing.assert_array_equal(after["ssm/B"][:2], arrays["ssm/B"][kept[0]])


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
@pytest.mark.parametrize("clip", [False, True])
def test_new_poles_come_back(rule, clip):
    arrays, config, layer, system = one_layer(
        discretization=rule, clip_eigs=clip, bidirectional=True, step_rescale=0.5, dtype=np.float64
    )
    # fast, oscillating, real, negative real, and so slow that clipping forces a smaller step
    poles = np.array([[0.1 + 0.2j, 0.9 * np.exp(2.9j), 0.5, -0.7, (1 - 1e-9) * np.exp(0.3j)]])
    rng = np.random.default_rng(4)
    B = rng.normal(size=(1, 5, 4)) + 1j * rng.normal(size=(1, 5, 4))
    C = rng.normal(size=(1, 2, 4, 5)) + 0j
    reduced = system.replace(poles=poles, B=B, C=C, D=np.zeros((1, 4, 4)))
    after, again = rebuilt(arrays, config, layer, Reduction(np.arange(5)[None], reduced, "all"))
    np.testing.assert_allclose(again.poles, poles, rtol=1e-12)
    np.testing.assert_allclose(again.B, B, rtol=1e-10)
    np.testing.assert_allclose(again.C, C, rtol=1e-12)
    # step sizes are touched only where clipping asks for it
    same = after["ssm/log_step"][:, 0] == arrays["ssm/log_step"][:, 0]
    assert same.tolist() == [True] * 4 + [not clip]
    assert (after["ssm/Lambda_re"].max() <= -1e-4) == clip


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_B_makes_up_for_rounded_poles(dtype):
    arrays, config, layer, system = one_layer(dtype=dtype)
    reduced = system.replace(poles=system.poles[:, :3] * 0.97, B=system.B[:, :3], C=system.C[..., :3])
    after, again = rebuilt(arrays, config, layer, Reduction(np.arange(3)[None], reduced, "all"), size=4)
    precision = float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(again.poles[:, :3], reduced.poles, rtol=16 * precision)
    np.testing.assert_allclose(again.B[:, :3].real, reduced.B.real, atol=2 * precision * np.abs(reduced.B).max())
    assert after["ssm/B"].dtype == dtype


def test_a_zero_pole_is_written_as_one_that_vanishes():
    arrays, config, layer, system = one_layer()
    reduced = system.replace(poles=np.zeros((1, 1)), B=system.B[:, :1], C=system.C[..., :1])
    _, again = rebuilt(arrays, config, layer, Reduction(np.zeros((1, 1), int), reduced, "all"))
    assert abs(again.poles[0, 0]) < 1e-30
    np.testing.assert_allclose(again.B, reduced.B, rtol=1e-6)


@pytest.mark.parametrize(
    ("rule", "clip", "pole"),
    [("zoh", True, 1.0), ("zoh", True, 1.01j), ("bilinear", False, -1.0), ("zoh", False, np.nan)],
)
def test_a_pole_that_cannot_be_written_is_named(rule, clip, pole):
    arrays, config, layer, system = one_layer(discretization=rule, clip_eigs=clip)
    reduced = system.replace(poles=np.array([[0.5, pole]]), B=system.B[:, :2], C=system.C[..., :2])
    with pytest.raises(UnsupportedModelError, match=r"ssm: the new pole .* of state 1 cannot be written"):
        rebuilt(arrays, config, layer, Reduction(np.arange(2)[None], reduced, "all"))


def test_a_read_out_too_large_for_float16_is_refused():
    arrays, config, layer, system = one_layer(dtype=np.float16)
    with pytest.raises(UnsupportedModelError, match="ssm/C: the new values do not fit into float16"):
        rebuilt(arrays, config, layer, Reduction(np.arange(5)[None], system.replace(C=system.C * 1e6), "readout"))


def test_magnitudes_are_sums_of_squares_of_each_states_parameters():
    arrays, config, layer, _ = one_layer(bidirectional=True, joint=True)
    found = FAMILY.magnitudes(layer, config, arrays.__getitem__)
    for n in range(5):
        own = [arrays[f"ssm/{role}"][n] for role in ("Lambda_re", "Lambda_im", "log_step", "B")]
        own += [arrays["ssm/C"][:, [n, n + 5]]]
        assert found[0, n] == pytest.approx(sum(float((values.astype(float) ** 2).sum()) for values in own))


def test_an_eigenvalue_at_zero_has_the_limit_as_input_gain():
    arrays, config, layer, _ = one_layer()
    arrays["ssm/Lambda_re"][0] = arrays["ssm/Lambda_im"][0] = 0
    system = FAMILY.system(layer, config, arrays.__getitem__)
    step = np.exp(arrays["ssm/log_step"][0, 0].astype(float))
    B = arrays["ssm/B"][0].astype(float)
    np.testing.assert_allclose(system.B[0, 0], step * (B[:, 0] + 1j * B[:, 1]))


def test_a_family_that_names_no_state_axes_has_no_magnitudes():
    class Silent(S5):
        axes = {}  # noqa: RUF012

    arrays, config, layer, _ = one_layer()
    with pytest.raises(UnsupportedModelError, match="choose another criterion"):
        Silent().magnitudes(layer, config, arrays.__getitem__)


@pytest.mark.parametrize(
    ("gone", "said", "message"),
    [
        ("encoder/encoder/bias", {}, "the encoder is not the published one"),
        ("decoder/bias", {}, "it belongs to task="),
        ("encoder/layers_1/out2/kernel", {}, "it belongs to activation=half_glu1; correct"),
    ],
)
def test_what_a_part_of_the_model_lacks_is_named(gone, said, message):
    arrays = checkpoint(activation="half_glu1")
    del arrays[f"params/{gone}"]
    config = s5_config(activation="half_glu1") | said
    layers = FAMILY.layers(infos(arrays), config)
    with pytest.raises(UnsupportedModelError, match=f"The tensor {gone} is missing: {message}"):
        FAMILY.forward(infos(arrays), config, layers)


def test_layers_without_a_head_have_no_forward_pass():
    arrays = {name: values for name, values in checkpoint().items() if "decoder" not in name}
    layers = FAMILY.layers(infos(arrays), s5_config())
    assert FAMILY.forward(infos(arrays), s5_config(), layers) is None


def test_the_read_out_settles_the_direction_where_there_is_one():
    arrays, config, *_ = one_layer()
    assert FAMILY.infer(infos(arrays))["bidirectional"] is False
    with pytest.raises(UnsupportedModelError, match=r"ssm: its read-out is for one direction, .*bidirectional=true"):
        FAMILY.layers(infos(arrays), {**config, "bidirectional": True})
    del arrays["ssm/C"]
    assert "bidirectional" not in FAMILY.infer(infos(arrays))
