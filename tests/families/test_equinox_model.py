"""The equinox model around LinOSS, LRU and S5: outputs, statistics in every spelling, names, and the commands on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lastcli.containers.base import TensorInfo
from lastcli.errors import UnsupportedModelError
from lastcli.families import detect, family_named
from lastcli.families.base import Family, Forward
from lastcli.families.equinox.leaves import names_by_shape
from lastcli.families.equinox.names import find_equinox
from tests.builders.equinox import FEATURES, OUTPUTS, STATES, WIDTH, equinox_model, renamed, some_inputs, without
from tests.builders.named import Arrays, infos
from tests.cli.test_imports import imported
from tests.docs import blocks as page
from tests.families import test_linoss, test_lru
from tests.families.rebuilding import config_of, forward_of, layers_of
from tests.upstream import s5 as s5_reference

torch = pytest.importorskip("torch")
nn = torch.nn.functional


def layer(arrays: Arrays, i: int, config: dict[str, Any], u: np.ndarray) -> np.ndarray:
    """One layer by its own plain recurrence, float64: u (L, H) → (L, H)."""
    own = {name: values for name, values in arrays.items() if name.startswith(f"blocks.{i}.")}
    leaves = {name.split(".")[-1] for name in own}
    if "A_diag" in leaves:
        ssm = {name: values for name, values in own.items() if ".ssm." in name}
        return test_linoss.plain(ssm, u, config["discretization"])
    if "nu_log" in leaves:
        return test_lru.plain({name: values for name, values in own.items() if ".lru." in name}, u, before=False)
    return s5_reference.recurrence(own, f"blocks.{i}.ssm.", config, u)


def blocks(
    arrays: Arrays, config: dict[str, Any], h: Any, *, gelu: str = "tanh", norm: str = "batch"
) -> tuple[Any, Any]:
    """The blocks from the definition, and what their layers get: h (n, L, H) float64 torch."""
    t = {name: torch.tensor(values).double() for name, values in arrays.items()}
    inputs = []
    for i in range(len({name.split(".")[1] for name in arrays if name.startswith("blocks.")})):
        path = f"blocks.{i}"
        if norm == "batch":
            mean, variance = t[f"{path}.norm.running_mean"], t[f"{path}.norm.running_var"]
            u = nn.batch_norm(h.transpose(1, 2), mean, variance, eps=1e-5).transpose(1, 2)
        else:
            u = nn.layer_norm(h, h.shape[-1:])
        inputs.append(u)
        y = torch.tensor(np.stack([layer(arrays, i, config, sequence.numpy()) for sequence in u]))
        y = nn.gelu(y, approximate="tanh" if gelu == "tanh" else "none")
        value, gate = (nn.linear(y, t[f"{path}.glu.w{j}.weight"], t[f"{path}.glu.w{j}.bias"]) for j in (1, 2))
        h = h + value * torch.sigmoid(gate)
    return h, inputs


def encoded(arrays: Arrays, x: np.ndarray) -> Any:
    weight, bias = (torch.tensor(arrays[f"linear_encoder.{leaf}"]).double() for leaf in ("weight", "bias"))
    return nn.linear(torch.tensor(x).double(), weight, bias)


def head(arrays: Arrays, h: Any, path: str = "linear_layer") -> Any:
    return nn.linear(h, *(torch.tensor(arrays[f"{path}.{leaf}"]).double() for leaf in ("weight", "bias")))


def forward(family: Family, arrays: Arrays, **changes: Any) -> Forward | None:
    config = config_of(family, arrays, **changes)
    return family.forward(infos(arrays), config, layers_of(family, arrays, config))


def lack(family: Family, arrays: Arrays, **changes: Any) -> str | None:
    config = config_of(family, arrays, **changes)
    return family.lacks(infos(arrays), config, layers_of(family, arrays, config))


def outputs(arrays: Arrays, x: np.ndarray, lengths: np.ndarray | None = None, **changes: Any) -> np.ndarray:
    family = detect(infos(arrays))
    return forward_of(family, arrays, config_of(family, arrays, **changes), x, lengths)[0]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("linoss", {}),
        ("linoss", {"discretization": "IMEX"}),
        ("lru", {}),
        ("s5", {"clip_eigs": True}),
    ],
)
def test_a_classifier_gives_the_logarithms_of_the_published_probabilities(kind: str, changes: dict[str, Any]) -> None:
    arrays, x = equinox_model(kind), some_inputs()
    family = detect(infos(arrays))
    assert family.name == kind
    config = config_of(family, arrays, **changes)
    got, inputs = forward_of(family, arrays, config, x)
    h, wanted_inputs = blocks(arrays, config, encoded(arrays, x))
    probabilities = torch.softmax(head(arrays, h.mean(1)), -1)
    np.testing.assert_allclose(torch.softmax(torch.tensor(np.array(got)).double(), -1), probabilities, atol=1e-5)
    for u, wanted in zip(inputs, wanted_inputs, strict=True):
        np.testing.assert_allclose(u, wanted, atol=2e-5)
    found = forward(family, arrays, **changes)
    assert found is not None
    assert (found.features, found.outputs, found.task, found.sequence) == (FEATURES, OUTPUTS, "classification", False)
    assert not any(".ssm." in name or ".lru." in name for name in found.params)


@pytest.mark.parametrize(("kind", "step", "tanh"), [("linoss", 1, True), ("lru", 4, True), ("s5", 4, False)])
def test_a_regression_gives_every_so_many_steps(kind: str, step: int, tanh: bool) -> None:
    arrays, x = equinox_model(kind), some_inputs()
    family = detect(infos(arrays))
    config = config_of(family, arrays, task="regression", output_step=step, tanh_output=tanh)
    h, _ = blocks(arrays, config, encoded(arrays, x))
    wanted = head(arrays, h[:, step - 1 :: step])
    got, _ = forward_of(family, arrays, config, x)
    np.testing.assert_allclose(got, torch.tanh(wanted) if tanh else wanted, atol=3e-5)
    assert got.shape == (3, 11 // step, OUTPUTS)


def test_a_pytorch_copy_has_the_exact_gelu_and_its_own_names() -> None:
    arrays, x = equinox_model(blocks=1), some_inputs()
    exact, tanh = (
        head(arrays, blocks(arrays, {"discretization": "IM"}, encoded(arrays, x), gelu=gelu)[0].mean(1))
        for gelu in ("exact", "tanh")
    )
    copy = renamed(arrays, (r"\.ssm\.", ".layer."), (r"steps$", "dt"), ("linear_layer", "linear_decoder"))
    copy["blocks.0.norm.num_batches_tracked"] = np.array(70)
    got = outputs({f"module.{name}": values for name, values in copy.items()}, x)
    np.testing.assert_allclose(got, exact, atol=1e-5)
    assert np.abs(got - np.asarray(tanh)).max() > 1e-4


def test_a_layer_norm_needs_no_statistics() -> None:
    arrays, x = without(equinox_model(blocks=1), ".norm."), some_inputs()
    h, _ = blocks(arrays, {"discretization": "IM"}, encoded(arrays, x), gelu="exact", norm="layer")
    np.testing.assert_allclose(outputs(arrays, x, norm="layer", gelu="exact"), head(arrays, h.mean(1)), atol=1e-5)


@pytest.mark.parametrize(
    ("index", "beside"),
    [
        ("state_index.", "first_time_index"),
        ("ema_state_index.", "ema_first_time_index"),
        ("ema_state_index.", "ema_state_index.init.0"),
        ("batch_state_index.", "batch_counter"),
    ],
)
@pytest.mark.parametrize("keystr", [False, True])
def test_the_state_of_equinox_in_its_own_spellings(index: str, beside: str, keystr: bool) -> None:
    arrays = renamed(equinox_model(), ("running_mean", f"{index}0"), ("running_var", f"{index}1"))
    arrays |= {f"blocks.{i}.norm.{beside}": np.array(7, "i4") for i in range(2)}
    if keystr:  # as `jax.tree_util.keystr` writes a model, and as its state names its entries
        arrays = renamed(
            arrays, (r"^(.*)\.norm\.(.*)\.(\d)$", r"LinOSS.\1.norm.\2[\3]"), (r"blocks\.(\d)", r"blocks[\1]")
        )
        arrays = renamed(arrays, (r"^(blocks|linear)", r".\1"))
    model = find_equinox(infos(arrays), [name.removesuffix(".A_diag") for name in arrays if name.endswith("A_diag")])
    assert model is not None
    found = model.statistics(1)
    assert found is not None
    ends = ("[0]", "[1]") if keystr else (".0", ".1")
    assert [name.endswith(index[:-1] + end) for name, end in zip(found, ends)] == [True, True]
    assert (found.updates is not None) == (beside == "batch_counter")


def test_statistics_that_start_at_zero_are_corrected_for_it() -> None:
    arrays, x = equinox_model(), some_inputs()
    h, _ = blocks(arrays, {"discretization": "IM"}, encoded(arrays, x))
    hidden = renamed(arrays, ("running_mean", "batch_state_index.0"), ("running_var", "batch_state_index.1"))
    for leaf in ("0", "1"):
        hidden[f"blocks.0.norm.batch_state_index.{leaf}"] *= np.float32(1 - 0.99**7)
    # after no update at all they are what they are
    hidden |= {f"blocks.{i}.norm.batch_counter": np.array(count, "i4") for i, count in enumerate((7, 0))}
    np.testing.assert_allclose(outputs(hidden, x), head(arrays, h.mean(1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["linoss", "lru", "s5"])
def test_without_statistics_there_is_no_forward_but_a_reason(kind: str) -> None:
    arrays = equinox_model(kind)
    family = detect(infos(arrays))
    assert lack(family, arrays) is None
    bare = without(arrays, "blocks.1.norm.running_var")
    # what the statistics start from is not what they came to
    bare |= {f"blocks.1.norm.ema_state_index.init.{k}": np.ones(WIDTH, "f4") for k in (0, 1)}
    assert forward(family, bare) is None
    assert "blocks.1.norm.running_mean" in str(lack(family, bare))
    assert lack(family, without(bare, "linear_encoder.weight")) is None


def test_padding_does_not_reach_the_mean() -> None:
    arrays, x = equinox_model(blocks=1), some_inputs(2, 9)
    h, _ = blocks(arrays, {"discretization": "IM"}, encoded(arrays, x))
    wanted = head(arrays, torch.stack([h[0, :6].mean(0), h[1].mean(0)]))
    np.testing.assert_allclose(outputs(arrays, x, np.array([6, 9])), wanted, atol=1e-5)


@pytest.mark.parametrize("pair", [False, True])
def test_tokens_and_pairs_of_documents(pair: bool) -> None:
    arrays = without(
        equinox_model("lru", blocks=1, seed=2, head="dual_head" if pair else "linear_layer"), "linear_encoder.bias"
    )
    table = np.random.default_rng(3).normal(size=(7, WIDTH)).astype("f4")
    arrays["linear_encoder.weight"] = table
    x = np.random.default_rng(4).integers(0, 7, (3, 2, 8) if pair else (3, 8))
    got = outputs(arrays, x, np.array([[8, 8], [8, 5], [8, 8]]) if pair else None)
    if pair:
        first, second = (blocks(arrays, {}, torch.tensor(table[x[:, k]]).double())[0] for k in (0, 1))
        features = torch.cat([first.mean(1), second.mean(1)], -1)
        features[1, WIDTH:] = second[1, :5].mean(0)
        for part in ("dual_head.layer1", "dual_head.layer2"):
            features = torch.relu(head(arrays, features, part))
        wanted = head(arrays, features, "dual_head.layer3")
    else:
        wanted = head(arrays, blocks(arrays, {}, torch.tensor(table[x]).double())[0].mean(1))
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert got.std(0).min() > 0.1
    found = forward(family_named("lru"), arrays)
    assert found is not None
    assert (found.features, found.layout) == (7, "pair" if pair else "single")
    if not pair:
        np.testing.assert_allclose(outputs(arrays, np.eye(7, dtype="f4")[x]), got, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays | {"blocks.0.norm.weight": np.ones(WIDTH, "f4")},
        lambda arrays: arrays | {"linear_middle.weight": np.ones((WIDTH, WIDTH), "f4")},
        lambda arrays: arrays | {"blocks.7.norm.running_mean": np.ones(WIDTH, "f4")},
        lambda arrays: arrays | {"linear_encoder.weight": np.ones((WIDTH + 1, FEATURES), "f4")},
        lambda arrays: arrays | {"linear_layer.weight": np.ones((OUTPUTS, WIDTH + 1), "f4")},
        lambda arrays: arrays | {"linear_layer.bias": np.ones(OUTPUTS + 1, "f4")},
        lambda arrays: arrays | {"blocks.0.norm.running_mean": np.ones(1, "f4")},
        lambda arrays: arrays | {"blocks.0.glu.w1.bias": np.ones((WIDTH, 1), "f4")},
        lambda arrays: without(arrays, "blocks.1.glu.w2.bias"),
        lambda arrays: without(arrays, "linear_layer"),
        lambda arrays: renamed(arrays, (r"^blocks\.1", "blocks.2")),
        lambda arrays: renamed(arrays, (r"^blocks\.1", "others.blocks.1")),
        lambda arrays: renamed(arrays, (r"\.(ssm|lru)\.", ".mixer.")),
    ],
)
@pytest.mark.parametrize("kind", ["linoss", "lru", "s5"])
def test_other_names_are_another_model(kind: str, change: Any) -> None:
    arrays = change(equinox_model(kind))
    family = family_named(kind)
    assert forward(family, arrays) is None
    assert lack(family, arrays) is None


@pytest.mark.parametrize(
    ("head", "changes", "message"),
    [("dual_head", {}, "dual_head"), ("linear_layer", {"output_step": 0}, "at least 1")],
)
def test_a_description_that_cannot_be_is_refused(head: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        forward(family_named("lru"), equinox_model("lru", head=head), task="regression", **changes)


def test_a_counter_of_steps_is_no_part_of_the_model() -> None:
    arrays = equinox_model("lru")
    layers = [layer.name for layer in layers_of(family_named("lru"), arrays, config_of(family_named("lru"), arrays))]
    found = find_equinox(infos(arrays), layers)
    assert found is not None
    assert find_equinox(infos(arrays | {"step": np.int32(7).reshape(())}), layers) == found


def test_shapes_alone_name_the_leaves_of_a_layer_only_where_all_agree() -> None:
    shapes = {"A_diag": (5,), "B": (5, 3, 2), "C": (3, 5, 2), "D": (3,), "steps": (5,)}

    def named(numbers: dict[str, int], **other: tuple[int, ...]) -> list[str] | None:
        leaves = [TensorInfo(f"{i}", shape, "float32", 0) for i, shape in enumerate((shapes | other).values())]
        leaves += [TensorInfo(name, (), "int64", 8) for name in numbers]
        return names_by_shape(leaves, numbers)

    own = [f"layers/0/{field}" for field in shapes]
    assert named({"5": 3, "6": 5}) == [*own, "layers/0/H", "layers/0/P"]
    assert named({"5": 5, "6": 3}) == [*own, "leaves/5", "leaves/6"]
    assert named({}, steps=(4,)) is None
    assert named({}, C=(3, 4, 2)) is None


def test_there_is_no_retrieval_in_this_model() -> None:
    assert forward(family_named("s5"), equinox_model("s5"), task="retrieval") is None


@pytest.mark.parametrize(
    ("kind", "known", "other"),
    [
        ("linoss", set(), {"output_step", "tanh_output", "task", "norm", "gelu"}),
        ("lru", {"prenorm", "pooling", "multidim", "lip"}, {"output_step", "tanh_output", "multidim", "lip"}),
        ("s5", {"activation", "prenorm", "mode"}, {"output_step", "tanh_output"}),
    ],
)
def test_options_without_a_meaning_are_idle(kind: str, known: set[str], other: set[str]) -> None:
    arrays = equinox_model(kind)
    assert family_named(kind).idle(infos(arrays)) == known
    assert family_named(kind).idle(infos(without(arrays, "linear_"))) == other


def saved(path: Path, arrays: Arrays) -> Path:
    from safetensors.numpy import save_file

    save_file(arrays, path)
    return path


def test_imex_is_pruned_by_true_cost_and_verified(last: Any, tmp_path: Path) -> None:
    arrays, x = equinox_model(), some_inputs(24, 20)
    model = tmp_path / "model.safetensors"
    data, calibration = tmp_path / "data.npz", tmp_path / "calibration.npz"
    answers = outputs(arrays, x, discretization="IMEX")
    arrays["linear_layer.bias"] -= answers.mean(0)  # no class for all
    saved(model, arrays)
    np.savez(data, x=x, y=(answers - answers.mean(0)).argmax(-1))
    np.savez(calibration, x=some_inputs(30, 20, seed=11))
    imex = ("--set", "discretization=IMEX")
    code, out, err = last("eval", model, *imex, "--data", data, "--json")
    assert code == 0, err
    assert json.loads(out)["value"] == 1.0
    calibrated = ("--method", "obs", "--refit", "calibrated", "--calibration", calibration)
    small = tmp_path / "small.safetensors"
    code, out, err = last("prune", model, *imex, "--ratio", "0.4", *calibrated, "--out", small, "--json")
    assert code == 0, err
    assert json.loads(out)["states_after"] == 6
    code, out, err = last("verify", model, small, *imex, "--json")
    assert code == 0, err
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert "random inputs" in checks["equal outputs"]["detail"]
    methods = ("--methods", "obs", *calibrated[2:])
    code, out, err = last("sweep", model, *imex, "--data", data, "--ratios", "0,0.4", *methods, "--json")
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert [row["states"] for row in rows] == [2 * STATES, 6]
    code, out, _ = last("eval", small, "--data", data, "--json")
    assert json.loads(out)["value"] == rows[1]["value"]


def test_a_regression_is_scored_at_its_own_steps(last: Any, tmp_path: Path) -> None:
    arrays, x = equinox_model(), some_inputs(6, 20)
    model = saved(tmp_path / "model.safetensors", arrays)
    settings = [part for key in ("task=regression", "output_step=6") for part in ("--set", key)]
    answers = np.asarray(outputs(arrays, x, task="regression", output_step=6))
    off = np.random.default_rng(2).normal(size=answers.shape)
    np.savez(tmp_path / "data.npz", x=x, y=answers + off)
    code, out, err = last("eval", model, *settings, "--data", tmp_path / "data.npz", "--json")
    assert code == 0, err
    assert json.loads(out)["value"] == pytest.approx((off**2).mean(), rel=1e-4)
    # sequences shorter than 6 steps end in a sentence, and only the last output of a shorter one does not count
    np.savez(tmp_path / "short.npz", x=x[:, :5], y=answers[:, :0])
    code, _, err = last("eval", model, *settings, "--data", tmp_path / "short.npz")
    assert (code, "after every 6" in err) == (3, True)
    np.savez(tmp_path / "padded.npz", x=x, y=answers + off, lengths=np.array([20, 17, 20, 20, 20, 20]))
    code, out, err = last("eval", model, *settings, "--data", tmp_path / "padded.npz", "--json")
    assert code == 0, err
    kept = np.ones(off.shape)
    kept[1, 2] = 0
    assert json.loads(out)["value"] == pytest.approx((off**2 * kept).sum() / kept.sum(), rel=1e-4)


def test_an_evaluation_without_statistics_says_what_to_do(last: Any, tmp_path: Path) -> None:
    model = saved(tmp_path / "model.safetensors", without(equinox_model(), ".norm."))
    np.savez(tmp_path / "data.npz", x=some_inputs(4), y=np.arange(4) % OUTPUTS)
    code, _, err = last("eval", model, "--data", tmp_path / "data.npz")
    assert code == 4
    assert "blocks.0.norm.running_mean" in err
    assert "--forward" in err
    code, _, err = last("prune", model, "--ratio", "0.4", "--out", tmp_path / "small.safetensors")
    assert code == 0, err
    assert last("verify", model, tmp_path / "small.safetensors")[0] == 0


def test_inspect_imports_nothing_heavy(tmp_path: Path) -> None:
    assert imported("inspect", saved(tmp_path / "model.safetensors", equinox_model())) == "[]"


class _Tree:
    """A model as `jax.tree_util` sees an equinox module: attributes by name; a StateIndex has no leaves."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


class _Index:
    """The key of an entry of `_State`."""


def _parts(tree: _Tree) -> Any:
    return [(jax.tree_util.GetAttrKey(k), v) for k, v in vars(tree).items() if not isinstance(v, _Index)], None


jax.tree_util.register_pytree_with_keys(_Tree, _parts, lambda _, leaves: leaves)


class _State:
    def __init__(self) -> None:
        self.values: dict[_Index, Any] = {}

    def add(self, value: Any) -> _Index:
        index = _Index()
        self.values[index] = value
        return index

    def get(self, index: _Index) -> Any:
        return self.values[index]


def _stand_in(arrays: Arrays, mode: str) -> tuple[_Tree, _State]:
    """Model and state of equinox with these values."""
    state = _State()

    def tree(prefix: str, **more: Any) -> _Tree:
        own = {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
        return _Tree(**{name: values for name, values in own.items() if "." not in name}, **more)

    def norm(i: int) -> _Tree:
        statistics = [arrays[f"blocks.{i}.norm.running_{leaf}"] for leaf in ("mean", "var")]
        if mode == "batch":
            hidden = [values * np.float32(1 - 0.9**3) for values in statistics]
            return _Tree(batch_state_index=state.add(hidden), batch_counter=state.add(3), momentum=0.9)
        return _Tree(**{mode: state.add(statistics), "start": np.zeros(WIDTH)})

    def block(i: int) -> _Tree:
        glu = _Tree(w1=tree(f"blocks.{i}.glu.w1."), w2=tree(f"blocks.{i}.glu.w2."))
        return _Tree(ssm=tree(f"blocks.{i}.ssm.", discretization="IM"), glu=glu, norm=norm(i), drop=_Tree(p=0.05))

    model = _Tree(
        linear_encoder=tree("linear_encoder."),
        blocks=[block(i) for i in range(2)],
        linear_layer=tree("linear_layer."),
        classification=True,
        output_step=1,
    )
    return model, state


@pytest.mark.parametrize("mode", ["state_index", "ema_state_index", "batch"])
def test_the_documented_export_writes_what_is_read(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.numpy import load_file

    arrays = equinox_model()
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "small.safetensors", arrays)
    namespace: dict[str, Any] = {}
    for block in page.blocks("docs/families/linoss.md"):
        if block.heading == "Running statistics":
            exec(block.text, namespace)
    export = namespace["export"]
    export(*_stand_in(arrays, mode), "model.safetensors")
    written = load_file("model.safetensors")
    assert written.keys() == arrays.keys()
    for name, values in arrays.items():
        np.testing.assert_allclose(written[name], values, rtol=1e-6)
