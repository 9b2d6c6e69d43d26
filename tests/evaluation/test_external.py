from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

import lastcli
from lastcli.errors import InputError, LastError, UsageError
from lastcli.evaluation.data import Split
from lastcli.evaluation.external import ExternalForward, load_external
from tests.builders import lru
from tests.builders.named import Arrays

DOCUMENT = Path(__file__).parents[2] / "docs" / "forward.md"


@pytest.fixture(autouse=True)
def _own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith(("my_", "last_forward_")):
            del sys.modules[name]


def model(states: int = 6, classes: int = 3) -> Arrays:
    rng = np.random.default_rng(0)
    cell = {f"cell.{name}": a for name, a in lru.torch_layer(rng, states, 2, 4).items()}
    head = {"head.weight": rng.normal(size=(classes, 4)).astype("f4"), "head.bias": np.zeros(classes, "f4")}
    return {**cell, **head}


def write(code: str, name: str = "my_model.py") -> str:
    Path(name).write_text(dedent(code), encoding="utf-8")
    return name


def classes(n: int = 10) -> Split:
    rng = np.random.default_rng(1)
    return Split(rng.normal(size=(n, 7, 2)).astype("f4"), rng.integers(0, 3, n), name="data")


def external(code: str, name: str = "forward") -> ExternalForward:
    return load_external(f"{write(code)}:{name}")


def documented() -> ExternalForward:
    text = DOCUMENT.read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert code
    return external(code[1])


def test_outputs_give_the_metric_whatever_the_batches() -> None:
    forward, split, tensors = documented(), classes(), model()
    metric = forward.metric(None, split)
    right = (forward.function(tensors, split.x, None).argmax(-1) == split.y).mean()
    for size in (None, 1, 4, 10, 99):
        found = forward.evaluate(tensors, split, metric, batch_size=size)
        assert (found.metric.name, found.value, found.n) == ("accuracy", pytest.approx(right), 10)
        assert found.statistics.shape == (10, 1)
        assert found.ci_low < found.value <= found.ci_high


def test_progress_counts_real_examples() -> None:
    seen: list[int] = []
    bar = type("Bar", (), {"advance": lambda self, n: seen.append(n)})()
    forward = documented()
    forward.evaluate(model(), classes(), forward.metric(None, classes()), batch_size=4, progress=bar)
    assert seen == [4, 4, 2]


def test_the_documented_example_sweeps_a_model_that_is_not_known() -> None:
    from safetensors.numpy import save_file

    forward, tensors = documented(), model()
    save_file(tensors, "model.safetensors")
    x = np.random.default_rng(2).normal(size=(40, 7, 2)).astype("f4")
    y = forward.function(tensors, x, None).argmax(-1)
    np.savez("test.npz", x=x, y=y)
    with pytest.raises(LastError, match="--forward"):
        lastcli.evaluate("model.safetensors", data="test.npz")
    result = lastcli.sweep("model.safetensors", data="test.npz", forward="my_model.py:forward", ratios="0,0.5,0.8")
    assert result.baseline == 1.0
    lastcli.prune("model.safetensors", "small.safetensors", ratio="0.5")
    alone = lastcli.evaluate("small.safetensors", data="test.npz", forward="my_model.py:forward")
    assert [row.states for row in result.rows] == [6, 3, 1]
    assert result.rows[0].value == 1.0
    assert result.rows[1].value == alone.value
    counted = lastcli.evaluate("small.safetensors", data="test.npz", forward="my_model.py:accuracy", metric="accuracy")
    assert counted.value == alone.value


def test_regression_over_time_with_warm_up_and_lengths() -> None:
    rng = np.random.default_rng(3)
    split = Split(rng.normal(size=(3, 6, 1)).astype("f4"), rng.normal(size=(3, 6, 1)).astype("f4"), np.array([6, 4, 5]))
    forward = external("def forward(tensors, x, lengths):\n    return x * tensors['gain'] + 0 * lengths[:, None, None]")
    metric = forward.metric("rmse", split, warmup=2)
    found = forward.evaluate({"gain": np.float32([2])}, split, metric, batch_size=2)
    errors = [(2 * split.x[i, 2:end] - split.y[i, 2:end]) ** 2 for i, end in enumerate([6, 4, 5])]
    assert found.value == pytest.approx(np.sqrt(np.concatenate(errors).mean()), rel=1e-6)


@pytest.mark.parametrize("y", [np.zeros(4, "f4"), np.zeros((4, 1), "f4")])
@pytest.mark.parametrize("shape", ["(len(x),)", "(len(x), 1)"])
def test_one_target_an_example_with_or_without_its_axis(y: np.ndarray, shape: str) -> None:
    split = Split(np.ones((4, 3, 1), "f4"), y)
    forward = external(f"import numpy as np\ndef forward(tensors, x):\n    return np.full({shape}, 2.0)")
    assert forward.evaluate({}, split, forward.metric("mse", split)).value == 4.0


def test_torch_outputs_are_taken() -> None:
    torch = pytest.importorskip("torch")
    forward = external("import torch\ndef forward(tensors, x):\n    return torch.ones(len(x), 3, requires_grad=True)")
    split = Split(np.ones((4, 3, 1), "f4"), np.zeros((4, 3), "f4"))
    assert forward.evaluate({}, split, forward.metric(None, split)).value == 1.0
    assert torch is not None


@pytest.mark.parametrize(
    ("metric", "number", "statistics"),
    [("accuracy", 0.75, 1), ("mse", 0.5, 4), ("rmse", 0.5, 4), ("mae", 0.5, 4), ("fit", 80.0, 4)],
)
def test_a_number_keeps_its_value_through_the_statistics(metric: str, number: float, statistics: int) -> None:
    forward = external(f"import numpy as np\ndef forward(tensors):\n    return np.float32({number})")
    assert not forward.needs_data
    found = forward.evaluate({}, None, forward.metric(metric, None))
    assert found.value == number
    assert found.metric.value(found.statistics) == pytest.approx(number)
    assert found.statistics.shape == (1, statistics)
    assert (found.ci_low, found.ci_high, found.n) == (None, None, 0)


def test_an_evaluation_sees_the_whole_split_once() -> None:
    forward = external("def forward(tensors, x, y, lengths):\n    return (len(x) + len(y) + lengths.sum()) / 1000")
    split = Split(np.ones((9, 5, 1), "f4"), np.zeros(9, int), np.full(9, 5))
    found = forward.evaluate({}, split, forward.metric("accuracy", split), batch_size=2)
    assert (found.value, found.n) == (pytest.approx(0.063), 9)


def test_tensors_cannot_be_written_to() -> None:
    forward = external("def forward(tensors, x):\n    tensors['a'][0] = 5\n    return x[:, 0]")
    tensors = {"a": np.zeros(2)}
    with pytest.raises(UsageError, match="failed with ValueError: assignment destination is read-only"):
        forward.evaluate(tensors, classes(), forward.metric(None, classes()))
    assert tensors["a"].flags.writeable


def test_a_file_may_import_what_lies_beside_it() -> None:
    Path("sub").mkdir()
    write("value = 3", "sub/my_neighbour.py")
    write("import my_neighbour\ndef forward(tensors):\n    return my_neighbour.value / 10", "sub/my_code.py")
    forward = load_external("sub/my_code.py:forward")
    assert forward.evaluate({}, None, forward.metric("accuracy", None)).value == pytest.approx(0.3)


def test_a_module_is_found_in_the_working_directory() -> None:
    write("def forward(tensors):\n    return 0.5", "my_module.py")
    assert load_external("my_module:forward").kind == "alone"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("my_model.py", "is not of the form"),
        (":forward", "is not of the form"),
        ("my_model.py:", "is not of the form"),
        ("absent.py:forward", "there is no file absent.py"),
        ("my_absent:forward", "could not be imported: ModuleNotFoundError"),
        ("my_model.py:forwrad", "has no function 'forwrad'. Did you mean 'forward'?"),
        ("my_model.py:number", "has no function 'number'"),
        ("my_model.py:nothing", "it must be (tensors, x, lengths)"),
        ("my_model.py:many", "it must be (tensors, x, lengths)"),
        ("my_broken.py:forward", "could not be imported: SyntaxError"),
        ("my_raising.py:forward", "could not be imported: RuntimeError: no device"),
    ],
)
def test_what_cannot_be_loaded_says_why(spec: str, says: str) -> None:
    write("number = 3\ndef forward(tensors, x): ...\ndef nothing(): ...\ndef many(a, b, c, d, e): ...")
    write("def forward(:", "my_broken.py")
    write("raise RuntimeError('no device')", "my_raising.py")
    with pytest.raises(UsageError, match=re.escape(says)):
        load_external(spec)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise KeyError('head.weight')", "failed with KeyError: 'head.weight'"),
        ("return x[:2, 0]", "for 10 examples"),
        ("return x[:, 0]", "the labels go up to 2"),
        ("return x", "must return (n, classes)"),
        ("return 3.0", "for 10 examples"),
        ("return 'accuracy'", "returned str"),
        ("return x + 1j", "returned ndarray, not an array of real numbers"),
        ("return None", "returned NoneType"),
    ],
)
def test_outputs_that_make_no_sense_are_refused(body: str, says: str) -> None:
    forward = external(f"def forward(tensors, x):\n    {body}")
    split = classes()
    with pytest.raises(UsageError, match=re.escape(says)):
        forward.evaluate({}, split, forward.metric(None, split))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return 1.5", "accuracy lies between 0 and 1"),
        ("return [1, 2]", "not a number"),
        ("return float('nan')", "nan"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(body: str, says: str) -> None:
    forward = external(f"def forward(tensors):\n    {body}")
    with pytest.raises(UsageError, match=says):
        forward.evaluate({}, None, forward.metric("accuracy", None))


def test_targets_of_another_shape_are_refused() -> None:
    forward = external("def forward(tensors, x):\n    return x[:, 0]")
    split = Split(np.ones((4, 3, 2), "f4"), np.zeros((4, 3), "f4"))
    with pytest.raises(UsageError, match=re.escape("returned shape (4, 2); the targets have (4, 3)")):
        forward.evaluate({}, split, forward.metric(None, split))


def test_a_metric_must_be_named_and_fit() -> None:
    alone = external("def forward(tensors):\n    return 1.0")
    with pytest.raises(UsageError, match="say which with --metric"):
        alone.metric(None, None)
    with pytest.raises(UsageError, match="no metric 'acuracy'"):
        alone.metric("acuracy", None)
    forward = external("def forward(tensors, x): ...")
    with pytest.raises(UsageError, match="does not fit"):
        forward.metric("mse", classes())
    with pytest.raises(InputError, match="no labels"):
        forward.metric(None, Split(np.ones((2, 3, 1), "f4")))
    with pytest.raises(InputError, match="labels y have shape"):
        forward.metric(None, Split(np.ones((2, 3, 1), "f4"), np.full((2, 3, 2), 7)))


def test_what_says_nothing_of_a_number_is_refused() -> None:
    alone = external("def forward(tensors):\n    return 0.5")
    with pytest.raises(UsageError, match="returns a number, so --threshold changes nothing"):
        alone.metric("accuracy", None, threshold=0.4)
    metric = alone.metric("accuracy", None)
    with pytest.raises(UsageError, match="returns a number, so --outputs says nothing"):
        alone.decided({}, None, metric, said="logits")
    assert alone.decided({}, None, metric, said=None) == (alone, None)
    outputs = external("def forward(tensors, x):\n    return x[:, 0]")
    split = Split(np.ones((4, 3, 2), "f4"), np.zeros((4, 2), "f4"))
    with pytest.raises(UsageError, match="measured as a regression, so --outputs says nothing"):
        outputs.decided({}, split, outputs.metric(None, split), said="logits")


@pytest.mark.parametrize("code", ["def forward(tensors, y): ...", "def forward(y): ..."])
def test_labels_without_inputs_are_no_arguments(code: str) -> None:
    with pytest.raises(UsageError, match=r"takes \(.*y\); it must be \(tensors, x, lengths\)"):
        external(code)


def test_a_number_of_torch_and_the_progress_of_one_call() -> None:
    code = """
    import numpy as np

    class Tensor:
        def detach(self): return self
        def cpu(self): return np.float32(0.5)

    def forward(tensors, x, y): return Tensor()
    """
    seen: list[int] = []
    bar = type("Bar", (), {"advance": lambda self, n: seen.append(n)})()
    forward, split = external(code), classes(9)
    found = forward.evaluate({}, split, forward.metric("accuracy", split), progress=bar)
    assert (found.value, seen) == (0.5, [9])


def test_one_logit_a_step_is_that_of_class_one() -> None:
    rng = np.random.default_rng(4)
    split = Split(rng.normal(size=(5, 6, 1)).astype("f4"), rng.integers(0, 2, (5, 6)))
    forward = external("def forward(tensors, x):\n    return x[..., 0]")
    found = forward.evaluate({}, split, forward.metric("accuracy", split))
    assert found.value == pytest.approx(((split.x[..., 0] > 0) == split.y).mean())


def test_data_and_labels_that_are_missing_or_of_another_shape() -> None:
    forward = external("def forward(tensors, x):\n    return x[:, 0]")
    with pytest.raises(UsageError, match="needs a held-out split"):
        forward.evaluate({}, None, forward.metric("accuracy", None))
    split = Split(np.ones((4, 3, 2), "f4"), np.eye(4, 3, dtype=int))
    with pytest.raises(UsageError, match=re.escape("returned shape (4, 2); the labels have (4, 3)")):
        forward.evaluate({}, split, forward.metric("subset_accuracy", split))
    with pytest.raises(InputError, match="has no labels y"):
        forward.evaluate({}, classes().without_labels(), forward.metric(None, classes()))
