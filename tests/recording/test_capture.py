"""`lastcli.capture` against the tool's own calibration pass, and what it refuses."""

import copy
import dataclasses
import json

import jax
import numpy as np
import pytest
import torch

import lastcli
from lastcli import containers
from lastcli.containers.base import TensorSource
from lastcli.engine.system import Reduction
from lastcli.errors import InputError, OutputError, UsageError
from lastcli.evaluation.data import Split
from lastcli.recording.arrays import as_sequences
from lastcli.recording.file import KEY, read_layer_inputs
from lastcli.recording.hooks import _hook
from lastcli.recording.sample import Sample
from lastcli.reduction.calibration import collect_moments
from lastcli.reduction.recorded import LayerInputs
from tests.builders.s4d import s4d_model
from tests.conftest import write_s5
from tests.oracles import recurrence
from tests.systems import system_of

pytestmark = pytest.mark.usefixtures("short_searches")


def write_s4d(path, seed=1):
    arrays = s4d_model(np.random.default_rng(seed), H=4, N=5)
    containers.write(path, [TensorSource.of(name, array) for name, array in arrays.items()], metadata={})
    return path


MODELS = {
    "s5": lambda path: write_s5(path),
    "s5 both ways": lambda path: write_s5(path, bidirectional=True),
    "s4d": write_s4d,
}


def inputs_of(checkpoint, split, size):
    """The inputs of every layer, batch by batch, without the rows that fill a batch."""
    forward = checkpoint.require_forward()
    for batch in split.batches(size):
        found = forward.apply(checkpoint.params, narrow(checkpoint.systems), batch.x, batch.lengths)[1]
        lengths = None if batch.lengths is None else batch.lengths[: batch.count]
        yield [np.asarray(u)[: batch.count] for u in found], lengths


def narrow(systems):
    kinds = {"c": np.complex64, "f": np.float32}
    return [jax.tree.map(lambda a: np.asarray(a).astype(kinds[np.asarray(a).dtype.kind]), one) for one in systems]


def split_for(checkpoint, *, n=40, padded=False, seed=4):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 12, checkpoint.require_forward().features)).astype(np.float32)
    return Split(x, lengths=rng.integers(3, 13, n) if padded else None)


def record(checkpoint, split, size, **options):
    recording = lastcli.capture(checkpoint, **options)
    for inputs, lengths in inputs_of(checkpoint, split, size):
        for name, u in zip(recording.names, inputs):
            recording.record(name, u, lengths=lengths)
    return recording


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_the_moments_are_those_of_the_tools_own_calibration_pass(kind, padded, tmp_path):
    checkpoint = lastcli.open(MODELS[kind](tmp_path / "model.safetensors"))
    split = split_for(checkpoint, padded=padded)
    expected = collect_moments(checkpoint.require_forward(), checkpoint.params, checkpoint.systems, split.batches(64))
    # other batches, the last one short
    recording = record(checkpoint, split, 17)
    for own, wanted in zip(recording.moments, expected, strict=True):
        for field, value in vars(wanted).items():
            scale = np.abs(value).max()
            # the inputs come from float32 programs of other batch sizes
            np.testing.assert_allclose(getattr(own, field), value, rtol=1e-5, atol=1e-6 * scale, err_msg=field)
    assert recording.padded_backwards == (padded and "both" in kind)


@pytest.mark.parametrize("kind", MODELS)
def test_the_moments_of_the_same_batches_are_the_same_to_float64_rounding(kind, tmp_path):
    checkpoint = lastcli.open(MODELS[kind](tmp_path / "model.safetensors"))
    split = split_for(checkpoint)
    forward = checkpoint.require_forward()
    seen = []

    def spied(*arguments):
        outputs, inputs = forward.apply(*arguments)
        jax.debug.callback(lambda *arrays: seen.append([np.array(a) for a in arrays]), *inputs)
        return outputs, inputs

    spy = dataclasses.replace(forward, apply=spied)
    expected = collect_moments(spy, checkpoint.params, checkpoint.systems, split.batches(20))
    jax.effects_barrier()
    recording = lastcli.capture(checkpoint)
    for inputs in seen:
        for name, u in zip(recording.names, inputs):
            for rows in (slice(0, 7), slice(7, 20)):
                recording.record(name, u[rows])
    for own, wanted in zip(recording.moments, expected, strict=True):
        for field, value in vars(wanted).items():
            np.testing.assert_allclose(getattr(own, field), value, rtol=1e-12, atol=1e-12 * np.abs(value).max())


def test_the_moments_are_those_of_a_plain_recurrence_with_padding_left_out(tmp_path):
    checkpoint = lastcli.open(write_s5(tmp_path / "model.safetensors"))
    rng = np.random.default_rng(0)
    u, lengths = rng.normal(size=(5, 9, 4)), np.array([9, 1, 4, 6, 9])
    recording = lastcli.capture(checkpoint)
    recording.record(recording.names[0], u[:2], lengths=lengths[:2])
    recording.record(
        recording.names[0], u[2:, :].transpose(0, 2, 1), mask=np.arange(9) < lengths[2:, None], layout="bhl"
    )
    y = recurrence(checkpoint.systems[0], u)
    kept = np.arange(9) < lengths[:, None]
    np.testing.assert_allclose(recording.moments[0].energy[0], (y[kept] ** 2).mean(0), rtol=1e-9)
    np.testing.assert_allclose(recording.moments[0].inputs[0], np.einsum("ti,tj->ij", u[kept], u[kept]) / kept.sum())
    assert recording.moments[0].weight == kept.sum()


@pytest.mark.parametrize("method", ["obs", "last"])
@pytest.mark.parametrize("kind", MODELS)
def test_pruned_it_is_what_calibration_gives_and_verify_computes_it_anew(kind, method, tmp_path, last):
    path = MODELS[kind](tmp_path / "model.safetensors")
    with lastcli.open(path) as checkpoint:
        split = split_for(checkpoint)
        record(checkpoint, split, 40).save(tmp_path / "inputs.safetensors")
    np.savez(tmp_path / "x.npz", x=split.x)
    goal = {"method": method, "refit": "calibrated", "ratio": 0.5}
    first = lastcli.prune(path, tmp_path / "a.safetensors", calibration=tmp_path / "x.npz", **goal)
    second = lastcli.prune(path, tmp_path / "b.safetensors", layer_inputs=tmp_path / "inputs.safetensors", **goal)
    for one, other in zip(first.layers, second.layers):
        np.testing.assert_array_equal(one.kept, other.kept)
    one, other = (containers.open_reader(tmp_path / name) for name in ("a.safetensors", "b.safetensors"))
    for name in one.tensors:
        np.testing.assert_allclose(one.read(name), other.read(name), rtol=2e-5, atol=2e-6)
    code, out, _ = last(
        "verify", path, tmp_path / "b.safetensors", "--layer-inputs", tmp_path / "inputs.safetensors", "--json"
    )
    found = {check["name"]: check["how"] for check in json.loads(out)["checks"]}
    assert code == 0
    assert found["read-out"] == "recomputed"


@pytest.mark.slow  # pruning with them is asked in every run
def test_score_and_sweep_take_recorded_inputs(tiny, data, last):
    with lastcli.open(tiny) as checkpoint:
        split = split_for(checkpoint)
        record(checkpoint, split, 40).save("inputs.safetensors")
    np.savez("x.npz", x=split.x)
    energies = [
        json.loads(last("score", tiny, "--method", "obs", *source, "--json")[1])["layers"][0]["energy"]
        for source in (("--layer-inputs", "inputs.safetensors"), ("--calibration", "x.npz"))
    ]
    np.testing.assert_allclose(*energies, rtol=1e-4)
    swept = ("sweep", tiny, "--data", data, "--ratios", "0.5", "--methods", "obs,last", "--json")
    code, out, err = last(*swept, "--layer-inputs", "inputs.safetensors", "--refits", "calibrated,poles")
    assert code == 0, err
    assert [row["refit"] for row in json.loads(out)["rows"]] == ["calibrated", "poles"] * 2
    assert "Poles refitted layer by layer on the recorded sample" in " ".join(json.loads(out)["notes"])


@pytest.mark.slow
def test_poles_fitted_to_the_sample_are_no_worse_than_the_read_out_alone(tiny):
    with lastcli.open(tiny) as checkpoint:
        split = split_for(checkpoint, n=60)
        recording = record(checkpoint, split, 30)
        recording.save("inputs.safetensors")
        systems, u = checkpoint.systems, recording.samples[1].arrays()[0]
    errors = {}
    for refit in ("calibrated", "poles"):
        goal = {"method": "obs", "ratio": 0.6, "refit": refit, "force": True}
        lastcli.prune(tiny, f"{refit}.safetensors", layer_inputs="inputs.safetensors", **goal)
        with lastcli.open(f"{refit}.safetensors") as reduced:
            errors[refit] = np.square(recurrence(reduced.systems[1], u) - recurrence(systems[1], u)).sum()
    assert errors["poles"] < 0.9 * errors["calibrated"]


class Wrapped(torch.nn.Module):
    """The S4D of the builders inside a model nobody knows, under a prefix of its own."""

    def __init__(self, arrays, i):
        super().__init__()
        own = f"s4_layers.{i}."
        self.kernel = torch.nn.Module()
        for name, array in arrays.items():
            if name.startswith(f"{own}kernel."):
                setattr(self.kernel, name.rpartition(".")[2], torch.nn.Parameter(torch.tensor(array)))
        self.D = torch.nn.Parameter(torch.tensor(arrays[f"{own}D"]))
        self.output_linear = torch.nn.Sequential(torch.nn.Conv1d(4, 8, 1))
        for part in ("weight", "bias"):
            setattr(
                self.output_linear[0], part, torch.nn.Parameter(torch.tensor(arrays[f"{own}output_linear.0.{part}"]))
            )

    def forward(self, u):
        return torch.tanh(self.output_linear(u)[:, :4] + u * self.D[:, None])


class Net(torch.nn.Module):
    def __init__(self, arrays):
        super().__init__()
        self.net = torch.nn.Module()
        self.net.s4_layers = torch.nn.ModuleList([Wrapped(arrays, i) for i in range(2)])

    def forward(self, x):
        for layer in self.net.s4_layers:
            x = x + layer(x)
        return x


@pytest.fixture
def net(tmp_path):
    path = write_s4d(tmp_path / "model.safetensors")
    return path, Net(s4d_model(np.random.default_rng(1), H=4, N=5)).eval()


def test_hooks_find_the_layers_under_any_prefix_and_are_gone_afterwards(net):
    path, model = net
    x = torch.randn(6, 4, 11, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), lastcli.capture(path, model) as recording:
        model(x)
        with recording.batch(lengths=torch.tensor([11, 5, 1, 2, 3, 4])):
            model(x.to(torch.bfloat16).float())
    assert [float(moments.weight) for moments in recording.moments] == [66 + 26] * 2
    model(x)
    assert recording.moments[0].weight == 92
    with torch.no_grad():
        second = x + model.net.s4_layers[0](x)
    by_hand = lastcli.capture(path)
    by_hand.record("s4_layers.1", second)
    with torch.no_grad(), lastcli.capture(path, torch.nn.Sequential(model)) as recording:
        model(x)
    np.testing.assert_allclose(recording.moments[1].features, by_hand.moments[1].features, rtol=1e-12, atol=1e-14)


def test_a_compiled_or_half_precision_model_is_the_same_model(net):
    path, model = net
    whole = torch.nn.Module()
    whole._orig_mod = model.bfloat16()
    x = torch.randn(2, 4, 9).bfloat16()
    with torch.no_grad(), lastcli.capture(path, whole) as recording:
        model(x)
    assert recording.moments[1].weight == 18


def test_a_parameter_alone_is_not_taken_for_the_layer(net):
    """A copy of one tensor lies under a shorter prefix; the layer is where all of them are."""
    path, model = net
    with lastcli.open(path) as checkpoint:
        first = next(iter(checkpoint.layers[0].tensors.values()))
    *places, leaf = f"d.{first}".split(".")
    inner = model
    for place in places:
        inner.add_module(place, torch.nn.Module())
        inner = getattr(inner, place)
    inner.register_parameter(leaf, torch.nn.Parameter(torch.zeros(1)))
    with torch.no_grad(), lastcli.capture(path, model) as recording:
        model(torch.ones(2, 4, 9))
    assert [float(moments.weight) for moments in recording.moments] == [18] * 2


def test_another_model_is_refused(net):
    path, model = net
    with pytest.raises(UsageError, match=r"layer s4_layers\.0: the torch model has no parameter"):
        lastcli.capture(path, torch.nn.Linear(3, 4))
    with pytest.raises(UsageError, match=r"A torch\.nn\.Module is needed"):
        lastcli.capture(path, "model")
    other = Net(s4d_model(np.random.default_rng(2), H=4, N=5)).eval()
    with pytest.raises(UsageError, match="other values in the torch model than in the checkpoint; load the checkpoint"):
        lastcli.capture(path, other)
    wide = Net(s4d_model(np.random.default_rng(1), H=4, N=6)).eval()
    with pytest.raises(UsageError, match=r"has shape \(4, 5, 2\) .* and \(4, 6, 2\) in the torch model; it is another"):
        lastcli.capture(path, wide)
    with lastcli.capture(path, model.train()), pytest.raises(UsageError, match=r"call model\.eval\(\)"):
        model(torch.randn(2, 4, 9))


def test_what_is_no_input_of_a_layer_is_refused(tiny):
    recording = lastcli.capture(tiny)
    name = recording.names[0]
    u = np.zeros((2, 9, 4), np.float32)
    with pytest.raises(UsageError, match=r"no layer 'encoder/layer_0/seq'.*Did you mean"):
        recording.record("encoder/layer_0/seq", u)
    with pytest.raises(UsageError, match=r"shape \(2, 9, 3\), and the checkpoint's layer takes 4 features"):
        recording.record(name, u[..., :3])
    with pytest.raises(UsageError, match="does not tell steps from features"):
        recording.record(name, u[:, :4])
    with pytest.raises(UsageError, match=r"\(n, L, 4\) or \(L, 4\)"):
        recording.record(name, u[0, 0])
    with pytest.raises(UsageError, match="lengths must be 2 whole numbers of 0 to 9"):
        recording.record(name, u, lengths=[3, 10])
    with pytest.raises(UsageError, match=r"the mask has shape \(1, 3\)"):
        recording.record(name, u, mask=[1, 1, 0])
    with pytest.raises(UsageError, match="lengths or a mask, not both"):
        recording.record(name, u, lengths=[1, 2], mask=np.ones((2, 9)))
    with pytest.raises(UsageError, match="real numbers are needed"):
        recording.record(name, u + 1j)
    with pytest.raises(InputError, match="NaN or infinity"):
        recording.record(name, u + np.nan)
    with pytest.raises(UsageError, match=r"traced by jax\.jit"):
        jax.jit(lambda u: recording.record(name, u))(u)
    with pytest.raises(UsageError, match=r"layout is 'hbl'"):
        recording.record(name, u, layout="hbl")
    with pytest.raises(UsageError, match=r"layout is 'hbl'; it must be one of blh, bhl"):
        lastcli.capture(tiny, layout="hbl")
    with pytest.raises(UsageError, match="sample must be at least 0, not -1"):
        lastcli.capture(tiny, sample=-1)
    with pytest.raises(UsageError, match=r"in which bhl names 9 features; the checkpoint's layer takes 4"):
        recording.record(name, u, layout="bhl")
    with pytest.raises(UsageError, match=r"shape \(2, 9, 4\), which is not laid out as hl"):
        recording.record(name, u, layout="hl")
    assert recording.moments[0].weight == 0
    recording.record("encoder.layers_0.seq", u)
    with pytest.raises(UsageError, match="Nothing was recorded of params/encoder/layers_1/seq"):
        recording.save("inputs.safetensors")
    with pytest.raises(UsageError, match="the intermediates hold nothing of it"):
        recording.record_intermediates({"encoder": {}})
    recording.record("encoder.layers_1.seq", u)
    with pytest.raises(OutputError, match=r"go into a \.safetensors file"):
        recording.save("inputs.npz")


def test_one_sequence_of_a_model_is_laid_out_as_its_batches():
    u = np.arange(36.0).reshape(4, 9)
    np.testing.assert_array_equal(as_sequences(u, 4, "bhl", "layer"), u.T[None])
    np.testing.assert_array_equal(as_sequences(u, 9, "lbh", "layer"), u[None])


def test_sequences_that_do_not_count_are_no_part_of_a_sample():
    sample = Sample(8, 0)
    sample.add(np.ones((3, 2, 1)), np.array([[1, 1], [0, 0], [1, 0]]))
    assert sample.seen == 2
    np.testing.assert_array_equal(sample.arrays()[1].sum(axis=1).sum(), 3)


def test_a_module_without_a_tensor_is_refused():
    hook = _hook(lambda *given: None, "deep")
    with pytest.raises(UsageError, match="layer deep: its module takes no tensor; record its input by hand"):
        hook(torch.nn.Linear(1, 1).eval(), ("text",), {"flag": True})


ALTERED = [
    (lambda about, arrays: about.update(schema="last.layer-inputs/0"), "is of the schema 'last.layer-inputs/0'"),
    (lambda about, arrays: about.update(layers="two"), "its list of layers is damaged"),
    (lambda about, arrays: about["layers"][0].pop("name"), "its list of layers is damaged"),
    (lambda about, arrays: about["layers"][1].update(delay=1), "layers_1/seq was recorded with another delay"),
    (lambda about, arrays: arrays.pop("moments.1.cross"), r"layers_1/seq: its moments \(cross\) are missing"),
    (lambda about, arrays: arrays.update({"moments.0.weight": np.zeros(())}), "layers_0/seq: nothing was recorded"),
    (lambda about, arrays: arrays.update({"sample.0.u": np.zeros((2, 9, 3), "f4")}), "its sample of .* is damaged"),
]


def test_an_altered_file_is_refused_in_one_sentence(tiny, tmp_path):
    recording = lastcli.capture(tiny)
    for name in recording.names:
        recording.record(name, np.random.default_rng(0).normal(size=(2, 9, 4)).astype("f4"))
    recording.save("inputs.safetensors")
    with containers.open_reader(tmp_path / "inputs.safetensors") as reader:
        whole = {name: reader.read(name) for name in reader.tensors}
        metadata = json.loads(reader.metadata[KEY])
    with lastcli.open(tiny) as checkpoint:
        assert read_layer_inputs(tmp_path / "inputs.safetensors", checkpoint).sampled
        for number, (alter, message) in enumerate(ALTERED):
            about, arrays = copy.deepcopy(metadata), dict(whole)
            alter(about, arrays)
            path = tmp_path / f"{number}.safetensors"
            sources = [TensorSource.of(name, array) for name, array in arrays.items()]
            containers.write(path, sources, metadata={KEY: json.dumps(about)})
            with pytest.raises(InputError, match=message):
                read_layer_inputs(path, checkpoint)


def test_moments_alone_give_no_signals_and_no_error_of_moved_poles():
    system = system_of("mimo")
    inputs = LayerInputs("inputs.safetensors", (None,), (None,))
    assert inputs.error(0, system, Reduction(np.arange(5)[None], system, "all")) is None
    with pytest.raises(UsageError, match=r"inputs\.safetensors holds moments and no sequences; record again"):
        next(inputs.signals(0, system))


@pytest.fixture
def recorded(tiny):
    with lastcli.open(tiny) as checkpoint:
        record(checkpoint, split_for(checkpoint), 40, sample=0).save("inputs.safetensors")
    return tiny


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--refit", "sequential"], "--refit sequential runs the whole model"),
        (["--refit", "poles"], "holds moments alone; record again"),
        (["--method", "obs-sensitivity"], "--method obs-sensitivity runs the whole model"),
        (["--match-output"], "--match-output runs the whole model"),
        (["--calibration", "x.npz"], "--calibration and --layer-inputs exclude each other"),
    ],
)
def test_what_runs_the_whole_model_says_so(recorded, flags, message, last):
    code, _, err = last(
        "prune", recorded, "--ratio", "0.5", "--dry-run", "--layer-inputs", "inputs.safetensors", *flags
    )
    assert code == 2
    assert message in err


def test_a_file_of_another_model_or_description_is_refused(recorded, tmp_path, last):
    run = ("--ratio", "0.5", "--method", "obs", "--dry-run", "--layer-inputs")
    others = {
        "other.safetensors": (write_s5(tmp_path / "other.safetensors", seed=8), "poles is not that of"),
        "s4d.safetensors": (write_s4d(tmp_path / "s4d.safetensors"), "it was recorded on another model than"),
        "wide.safetensors": (write_s5(tmp_path / "wide.safetensors", width=6), "recorded on another checkpoint"),
        "deep.safetensors": (write_s5(tmp_path / "deep.safetensors", sizes=(5, 6)), "it is another model's"),
    }
    for path, message in others.values():
        code, _, err = last("prune", path, *run, "inputs.safetensors")
        assert (code, message in err) == (3, True), err
    code, _, err = last("prune", recorded, *run, "inputs.safetensors", "--set", "discretization=bilinear")
    assert code != 0
    code, _, err = last("prune", recorded, *run, recorded)
    assert (code, "holds no recorded layer inputs" in err) == (3, True)
    code, _, err = last("prune", recorded, *run, tmp_path / "missing.safetensors")
    assert code == 3
    damaged = bytearray((tmp_path / "inputs.safetensors").read_bytes())
    damaged[-100] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(damaged)
    code, _, err = last("prune", recorded, *run, "damaged.safetensors")
    assert (code, "sha256" in err) == (3, True), err


def test_a_flag_replaces_the_recipes_calibration(recorded, tmp_path, last):
    (tmp_path / "recipe.yaml").write_text("calibration: nowhere.npz\nratio: 0.5\nmethod: obs\n")
    code, _, err = last(
        "prune", recorded, "--recipe", "recipe.yaml", "--dry-run", "--layer-inputs", "inputs.safetensors"
    )
    assert code == 0, err


def test_the_sample_is_even_bounded_and_the_same_for_every_layer():
    sample, other = Sample(8, 0), Sample(8, 0)
    counts = np.zeros(40)
    for seed in range(300):
        one = Sample(8, seed)
        for start in range(0, 40, 5):
            rows = np.arange(start, start + 5, dtype=np.float32)
            one.add(np.broadcast_to(rows[:, None, None], (5, 2, 1)), np.ones((5, 2)))
        u, _ = one.arrays()
        assert len(u) == 8
        counts[u[:, 0, 0].astype(int)] += 1
    assert np.abs(counts - 60).max() < 35
    for taken, width in ((sample, 1), (other, 3)):
        rng = np.random.default_rng(1)
        for length in (4, 9, 6):
            u = np.repeat(rng.normal(size=(6, length, 1)), width, axis=2)
            taken.add(u, np.ones((6, length)))
    first, second = sample.arrays(), other.arrays()
    np.testing.assert_array_equal(first[0], second[0][..., :1])
    assert first[0].shape == (8, 9, 1)
    assert set(first[1].sum(axis=1)) <= {4, 6, 9}


def test_memory_does_not_grow_with_the_batches(tiny):
    recording = lastcli.capture(tiny, sample=4)
    for _ in range(30):
        for name in recording.names:
            recording.record(name, np.ones((4, 9, 4), np.float32))
    assert recording.samples[0].seen == 120
    assert recording.samples[0].arrays()[0].shape == (4, 9, 4)
    assert recording.moments[0].weight == 30 * 36


def test_the_error_on_data_is_that_of_the_recorded_outputs(tiny, last):
    with lastcli.open(tiny) as checkpoint:
        recording = record(checkpoint, split_for(checkpoint), 40)
        recording.save("inputs.safetensors")
        original = checkpoint.systems
    u = [one.arrays()[0] for one in recording.samples]
    for refit in ("calibrated", "poles"):
        goal = {"method": "obs", "ratio": 0.5, "refit": refit, "force": True}
        result = lastcli.prune(tiny, "small.safetensors", layer_inputs="inputs.safetensors", **goal)
        with lastcli.open("small.safetensors") as small:
            for layer, old, new, signal in zip(result.layers, original, small.systems, u):
                y, direct = recurrence(old, signal), signal @ old.D[0].T
                expected = np.linalg.norm(recurrence(new, signal) - y) / np.linalg.norm(y - direct)
                assert layer.data_error == pytest.approx(expected, rel=1e-3)
        out = last("verify", tiny, "small.safetensors", "--layer-inputs", "inputs.safetensors", "--json")[1]
        assert json.loads(out)["layers"][0]["data_error"] == pytest.approx(result.layers[0].data_error)
    assert "on data" in last("verify", tiny, "small.safetensors", "--layer-inputs", "inputs.safetensors")[1]
