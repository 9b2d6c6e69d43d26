"""The pages of the PyTorch families: a model trained with the project's constructor, pruned as the page says, loads
strictly into the project's constructor of the new size and computes what `last` does, and what the whole model does
without the dropped states.
"""

from __future__ import annotations

import functools
import importlib
import json
from pathlib import Path

import numpy as np
import pytest

import lastcli
from tests import oracles
from tests.docs.blocks import blocks, follow
from tests.docs.outputs import alive, describe, kept, outputs, same
from tests.docs.upstream import install
from tests.upstream import mega as mega_reference

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


def trained(model):
    """A model with every norm and every statistic moved off its initial value, in evaluation mode."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "norm" in name or name.endswith(("ln.weight", "ln.bias")):
                value += 0.3 * torch.randn_like(value)
    return model.eval()


def silenced(model, path: str, read: str, pattern: str, axis: int):
    """The same module with the read-out of every dropped state set to zero.

    `read` is the read-out's name below a layer and `axis` its state axis; a read-out (rows, sets, N) or (sets, N) has
    other states in every set.
    """
    weights = model.state_dict()
    for layer, stayed in kept(path).items():
        name = pattern.format(layer)
        C = weights[f"{name}{read}"]
        C *= torch.from_numpy(_against(alive(stayed, C.shape[axis]), C.ndim, axis))
    return model


def _against(keep: np.ndarray, ndim: int, axis: int) -> np.ndarray:
    """(sets, N) as something that broadcasts against a read-out with its sets just before its states."""
    shape = [1] * ndim
    shape[axis] = keep.shape[1]
    if len(keep) > 1:
        shape[axis - 1] = len(keep)
    return keep.reshape(shape)


def inputs(length: int = 17, features: int = 1):
    return torch.randn(2, length, features)


@pytest.mark.parametrize("prenorm", [False, True])
def test_s4d(prenorm, last, monkeypatch):
    standins = install(monkeypatch, "s4_repository")
    S4D = importlib.import_module("models.s4.s4d").S4D
    build = functools.partial(standins.S4Model, lambda width: S4D(width, d_state=10, dropout=0.2), prenorm=prenorm)
    whole = trained(build())
    torch.save({"model": whole.state_dict(), "acc": 90.0, "epoch": 3}, "ckpt.pth")
    describe("ckpt.pth", family="s4d", prenorm=prenorm)
    small = follow("docs/families/s4d.md", {"model": build()}, last)["model"]
    x = inputs()
    same(small(x), outputs("small.pth", x.numpy()))
    same(small(x), silenced(whole, "small.pth", "kernel.C", "{}.", 1)(x))


S4_LAYERS = {
    "zoh": {},
    "bilinear": {"disc": "bilinear"},
    "softplus": {"dt_transform": "softplus", "real_transform": "softplus"},
    "tied": {"n_ssm": 2},
    "both ways": {"bidirectional": True},
    "heads": {"channels": 2},
    "dropout": {"dropout": 0.3, "tie_dropout": True},
}
NAMED = {"disc": "discretization", "dt_transform": "dt_transform", "real_transform": "real_transform"}


@pytest.mark.parametrize("name", S4_LAYERS)
def test_s4(name, last, monkeypatch):
    standins = install(monkeypatch, "s4_repository")
    S4Block = importlib.import_module("models.s4.s4").S4Block
    layer = {"mode": "diag", "init": "diag-lin", "d_state": 10, **S4_LAYERS[name]}
    build = functools.partial(standins.S4Model, lambda width: S4Block(width, **layer))
    whole = trained(build())
    torch.save(whole.state_dict(), "model.pt")
    describe("model.pt", family="s4", **{NAMED[key]: value for key, value in layer.items() if key in NAMED})
    run = {"model": {"layer": layer, "norm": "layer"}, "decoder": {"mode": "pool"}}
    torch.save({"state_dict": {}, "hyper_parameters": run}, "run.ckpt")
    small = follow("docs/families/s4.md", {"model": build(), "layer": layer}, last)["model"]
    x = inputs()
    same(small(x), outputs("small.pt", x.numpy()))
    Path("model.json").unlink()
    said = taken(last, "model.pt", "run.json")
    assert said["discretization"] == layer.get("disc", "zoh")
    assert said["dt_transform"] == layer.get("dt_transform", "exp")


def low_rank(standins, **changes):
    S4Block = importlib.import_module("models.s4.s4").S4Block
    layer = {"mode": "dplr", "init": "legs", "d_state": 6, "dt_transform": "exp", **changes}
    return layer, functools.partial(standins.S4Model, lambda width: S4Block(width, **layer), n_layers=1)


@pytest.mark.parametrize("form", ["s4d", "s4"])
def test_s4_dplr(form, last, monkeypatch):
    layer, build = low_rank(install(monkeypatch, "s4_repository"))
    torch.save(trained(build()).state_dict(), "model.pt")
    describe("model.pt", family="s4_dplr", form=form)
    small = follow("docs/families/s4_dplr.md", {"model": build(), "layer": layer}, last)["model"]
    x = inputs()
    same(small(x), outputs("small.pt", x.numpy()))


@pytest.mark.parametrize("both", [False, True])
def test_a_low_rank_file_that_is_only_converted_loads_in_the_same_way(both, last, monkeypatch):
    layer, build = low_rank(install(monkeypatch, "s4_repository"), bidirectional=both)
    torch.save(trained(build()).state_dict(), "model.pt")
    x = inputs()
    whole = outputs("model.pt", x.numpy())
    code, _, err = last("convert", "model.pt", "small.pt", "--to-family", "s4" if both else "s4d")
    assert code == 0, err
    namespace = {"model": build(), "layer": layer}
    for code in _python("docs/families/s4_dplr.md"):
        exec(code, namespace)
    same(namespace["model"](x), whole)


def _python(page):
    return [block.text for block in blocks(page) if block.language == "python"]


def taken(last, path: str, description: str) -> dict:
    """A description that a page made is one: every option of it, as `last inspect` shows them."""
    code, out, err = last("inspect", path, "--model-config", description, "--json")
    assert code == 0, err
    return {key: setting["value"] for key, setting in json.loads(out)["config"].items()}


@pytest.mark.parametrize("mode", ["nplr", "dplr"])
def test_the_description_of_a_low_rank_run(mode, last, monkeypatch):
    standins = install(monkeypatch, "s4_repository")
    S4Block = importlib.import_module("models.s4.s4").S4Block
    layer = {"mode": mode, "disc": "zoh", "d_state": 8, "dt_transform": "softplus"}
    whole = standins.S4Model(lambda width: S4Block(width, **{**layer, "mode": "dplr"}))
    torch.save(whole.state_dict(), "model.pt")
    run = {"model": {"layer": layer, "norm": "layer"}, "decoder": {"mode": "pool"}}
    torch.save({"state_dict": {}, "hyper_parameters": run}, "run.ckpt")
    (code,) = [text for text in _python("docs/families/s4.md") if "hyper_parameters" in text]
    exec(code, {})
    assert json.loads(Path("run.json").read_text())["family"] == "s4_dplr"
    assert taken(last, "model.pt", "run.json")["dt_transform"] == "softplus"


DSS_LAYERS = {
    "softmax": {},
    "exp": {"version": "exp"},
    "both ways": {"bidirectional": True},
    "one step": {"sep_dt_re_im": False},
}


@pytest.mark.parametrize("name", DSS_LAYERS)
def test_dss(name, last, monkeypatch):
    install(monkeypatch, "dss")
    DSS = importlib.import_module("src.models.sequence.ss.standalone.dss").DSS
    layer = {"d_state": 6, "version": "softmax", **DSS_LAYERS[name]}
    whole = torch.nn.Sequential(DSS(4, **layer), DSS(4, **layer))
    torch.save(whole.state_dict(), "model.pt")
    length = 30
    describe("model.pt", family="dss", kernel_length=length)
    model = torch.nn.Sequential(DSS(4, **layer), DSS(4, **layer))
    small = follow("docs/families/dss.md", {"model": model, "layer": layer}, last)["model"]
    u = torch.randn(1, 4, length)
    for block, system in zip(small, lastcli.open("small.pt").systems, strict=True):
        seen: list[torch.Tensor] = []
        block.output_linear.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
        block(u)
        y = oracles.recurrence(system, u.mT.numpy().astype(float))
        expected = torch.nn.functional.gelu(torch.tensor(y))
        got = seen[0] if seen[0].shape == expected.shape else seen[0].mT
        same(got, expected)


S5_BLOCKS = {"plain": {}, "both ways": {"bidir": True}, "no glu": {"glu": False}, "wide": {"ff_mult": 1.7}}


@pytest.mark.parametrize("name", S5_BLOCKS)
def test_s5_pytorch(name, last, monkeypatch):
    install(monkeypatch, "s5_pytorch")
    S5Block = importlib.import_module("s5").S5Block
    whole = trained(S5Block(6, 8, **{"bidir": False, **S5_BLOCKS[name]}))
    torch.save(whole.state_dict(), "block.pt")
    small = follow("docs/families/s5_pytorch.md", {}, last)["block"]
    x = inputs(features=6)
    same(small(x), outputs("small.pt", x.numpy()))
    if name != "both ways":
        same(small(x), silenced(whole, "small.pt", "C", "{}.", 1)(x))


@pytest.mark.parametrize("project", ["lru_torch", "neural_ssm"])
def test_lru(project, last, monkeypatch):
    standins = install(monkeypatch, project)
    dlru = project == "lru_torch"
    LRU = importlib.import_module("lru.linear" if dlru else "neural_ssm.ssm.lti_cells").LRU
    whole = trained(standins.Stack(LRU, dlru=dlru))
    torch.save({"model_state_dict": whole.state_dict()}, "model.pth")
    small = follow(
        "docs/families/lru.md", {"model": standins.Stack(LRU, dlru=dlru)}, last, under="Loading a compact file"
    )["model"]
    x = inputs()
    same(small(x), outputs("small.pth", x.numpy()))
    same(small(x), silenced(whole, "small.pth", "C", "{}.", 1)(x))


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("truncation", [None, 4])
def test_mega(both, truncation, last, monkeypatch):
    install(monkeypatch, "mega")
    EMA = importlib.import_module("fairseq.modules.exponential_moving_average").MultiHeadEMA
    arrays = mega_reference.fairseq(states=6, both=both, count=2)
    torch.save({"model": {name: torch.tensor(a) for name, a in arrays.items()}}, "checkpoint.pt")

    model = torch.nn.Module()
    for name, array in arrays.items():
        *path, leaf = name.split(".")
        if path[-1] == "move":
            move = EMA(mega_reference.WIDTH, 6, both, truncation)
            if not hasattr(inner := _inner(model, path[:-1]), "move"):
                inner.add_module("move", move)
        else:
            _inner(model, path).register_buffer(leaf, torch.tensor(array))
    namespace = follow("docs/families/mega.md", {"model": model}, last)
    small = {name: a.numpy() for name, a in torch.load("small.pt", weights_only=True)["model"].items()}
    reference = mega_reference.Reference(small, truncation=truncation)
    x = np.random.default_rng(0).normal(size=(11, mega_reference.WIDTH))
    for i in range(2):
        name = f"encoder.encoder.layers.{i}.mega_layer.move"
        move = namespace["model"].get_submodule(name)
        assert move.gamma.shape[1] < 6
        with torch.no_grad():
            y = move(torch.tensor(x[:, None], dtype=torch.float32))[:, 0]
        same(y, reference.average(name, x))


def _inner(module, path):
    for part in path:
        if part not in dict(module.named_children()):
            module.add_module(part, torch.nn.Module())
        module = module.get_submodule(part)
    return module


def test_attenuate(last, monkeypatch):
    install(monkeypatch, "attenuate")
    denoiser = importlib.import_module("attenuate.model").Denoiser
    options = {"channels": [3, 4], "resample_factors": [2, 2]}
    torch.save(denoiser(num_coeffs=4, repeat=2, **options).state_dict(), "model.pt")
    x = torch.randn(2, 1, 24)
    scope = follow("docs/families/attenuate.md", {"options": options, "x": x}, last)
    ours = outputs("small.pt", x.transpose(1, 2).numpy())
    same(ours, scope["y"].detach().transpose(1, 2).numpy())


class S4DLayer(torch.nn.Module):
    """S4D as it is written anew, with complex A and C."""

    def __init__(self, width, states):
        super().__init__()
        self.A = torch.nn.Parameter(torch.complex(torch.full((width, states), -0.5), 3 * torch.rand(width, states)))
        self.C = torch.nn.Parameter(torch.randn(width, states, dtype=torch.cfloat))
        self.log_dt = torch.nn.Parameter(torch.rand(width) - 3)

    def forward(self, u):
        dtA = self.log_dt.exp()[:, None] * self.A
        powers = torch.exp(dtA[..., None] * torch.arange(u.shape[1]))
        k = torch.einsum("hn,hnl->hl", self.C * (torch.exp(dtA) - 1) / self.A, powers).real
        steps = [(k[:, : t + 1].flip(-1).T * u[:, : t + 1]).sum(1) for t in range(u.shape[1])]
        return torch.stack(steps, dim=1)


def test_complex_s4d(last, monkeypatch):
    module = type(importlib)("model")
    module.S4D = S4DLayer
    monkeypatch.setitem(importlib.sys.modules, "model", module)
    torch.save({f"s4d.{name}": value for name, value in S4DLayer(3, 6).state_dict().items()}, "model.pt")
    u = torch.randn(2, 17, 3)
    y = follow("docs/families/complex_s4d.md", {"u": u}, last)["y"].detach().numpy()
    (system,) = lastcli.open("small.pt").systems
    assert system.states == 3
    np.testing.assert_allclose(y, oracles.recurrence(system, u.double().numpy()), atol=1e-5)
