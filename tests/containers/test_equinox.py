"""equinox files: leaves without names, read with a skeleton, by their shapes, or with the sidecar that `last` wrote."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest

from lastcli import containers
from lastcli.errors import InputError, UsageError
from lastcli.model.opening import open_checkpoint
from lastcli.verbs.shared.skeleton import load_skeleton
from tests.builders.eqx import eqx_bytes, s5_module
from tests.containers.samples import contents, copy, put, same_bits

HEADER = '{"ssm_dim": 6, "note": "ü"}'

# a module of the user's: fields in an order of their own, numbers and a function among them
MODULE = """
import jax, jax.numpy as jnp
from functools import partial

@partial(jax.tree_util.register_dataclass, data_fields=["Lambda_re", "Lambda_im", "B", "C", "D", "log_step", "H", "P",
    "act"], meta_fields=[])
class SSM:
    def __init__(self, *leaves):
        (self.Lambda_re, self.Lambda_im, self.B, self.C, self.D, self.log_step, self.H, self.P, self.act) = leaves

def ssm(P=6, H=4):
    zeros = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    return SSM(zeros(P), zeros(P), zeros(P, H, 2), zeros(H, P, 2), zeros(H), zeros(P, 1), H, P, jax.nn.gelu)

def model(**sizes):
    zeros = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    return {"encoder": zeros(4, 3), "seq": [ssm(**sizes), ssm(**sizes)], "w": zeros(2, 4)}

def other(): return model(P=7)
def short(): return model()["seq"]
def empty(): return {}
def broken(): return 1 / 0
def trained():
    m = model(); z = {"encoder": m["encoder"], "w": m["w"]}
    return {"m": m, "z_state": {"count": jnp.zeros((), jnp.int32), "mu": z, "nu": z}}
"""


def layer(rng, states=6, width=4):
    n = lambda *shape: rng.normal(size=shape).astype("f4")  # noqa: E731
    real = -rng.uniform(0.2, 1.5, states).astype("f4")
    return [real, n(states), n(states, width, 2), n(width, states, 2), n(width), n(states, 1) - 2, width, states]


@pytest.fixture
def leaves():
    rng = np.random.default_rng(0)
    n = lambda *shape: rng.normal(size=shape).astype("f4")  # noqa: E731
    return [n(4, 3), *layer(rng), *layer(rng), n(2, 4)]


@pytest.fixture
def saved(leaves, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.eqx").write_bytes(eqx_bytes(leaves, HEADER))
    return tmp_path / "m.eqx"


def arrays_in(path):
    """The header and every leaf, as `numpy.load` reads them."""
    data = path.read_bytes()
    line, _, rest = data.partition(b"\n") if data.startswith(b"{") else (b"", b"", data)
    file, found = io.BytesIO(rest), []
    while file.tell() < len(rest):
        found.append(np.load(file))
    return line.decode(), found


def test_without_names_leaves_are_numbered_and_a_round_trip_is_the_same_file(saved, tmp_path):
    with containers.open_reader(saved) as reader:
        assert len(reader.unnamed) == 18
        assert "leaves/0" in reader.tensors
        assert {name: reader.extras[name] for name in ("leaves/7", "leaves/8")} == {"leaves/7": 4, "leaves/8": 6}
        for name in ("again.eqx", "flat.safetensors", "o", "x.msgpack"):
            copy(reader, tmp_path / name, template=reader)
    for name in ("flat.safetensors", "o", "x.msgpack"):
        with containers.open_reader(tmp_path / name) as reader:
            copy(reader, tmp_path / f"from_{name[0]}.eqx", template=reader)
    for name in ("again.eqx", "from_f.eqx", "from_o.eqx", "from_x.eqx"):
        assert (tmp_path / name).read_bytes() == saved.read_bytes(), name


def test_the_names_are_those_of_the_skeleton(saved, leaves):
    like = load_skeleton("mine.py:model")
    with containers.open_reader(saved, like=like) as reader:
        assert list(reader.tensors)[:3] == ["encoder", "seq/0/Lambda_re", "seq/0/Lambda_im"]
        assert reader.extras["seq/1/P"] == 6
        np.testing.assert_array_equal(reader.read("seq/1/C"), leaves[12])
        assert reader.unnamed == ()


def test_a_whole_run_with_a_skeleton(saved, leaves, last, tmp_path):
    like = ("--like", "mine:model")
    _, out, _ = last("inspect", saved, *like, "--json")
    found = json.loads(out)
    assert (found["family"], found["container"]) == ("s5", "equinox")
    assert [item["name"] for item in found["layers"]] == ["seq/0", "seq/1"]
    assert found["parameters"] == sum(leaf.size for leaf in leaves if isinstance(leaf, np.ndarray))
    code, _, err = last("prune", saved, *like, "--states", "5", "--out", "small.eqx")
    assert code == 0, err
    line, written = arrays_in(tmp_path / "small.eqx")
    assert line == HEADER
    assert len(written) == len(leaves)
    sizes = [written[at].item() for at in (8, 16)]
    assert sum(sizes) == 5
    for at, size in zip((1, 9), sizes):
        assert [array.shape for array in written[at : at + 8]] == [
            (size,), (size,), (size, 4, 2), (4, size, 2), (4,), (size, 1), (), ()
        ]  # fmt: skip
    np.testing.assert_array_equal(written[17], leaves[17])
    # the sidecar has the names: nobody needs the skeleton to read it, and one of the old sizes does no harm
    for arguments in (("inspect", "small.eqx"), ("inspect", "small.eqx", *like), ("verify", saved, "small.eqx", *like)):
        code, _, err = last(*arguments)
        assert code == 0, err
    code, _, err = last("convert", "small.eqx", "small.safetensors")
    assert code == 0, err
    same_bits(contents(tmp_path / "small.safetensors"), contents(tmp_path / "small.eqx"))
    assert last("convert", "small.safetensors", "back.eqx")[0] == 0
    assert (tmp_path / "back.eqx").read_bytes() == (tmp_path / "small.eqx").read_bytes()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("mine:other", r"'seq/0/Lambda_re' has shape \(6,\), but \(7,\) in the skeleton"),
        ("mine:short", "has 18 leaves, but the skeleton 16"),
        ("mine:empty", "gives a dict without arrays"),
        ("mine:broken", "--like mine:broken failed: ZeroDivisionError"),
        ("mine:missing", "mine has no function 'missing'"),
        ("nowhere:model", "--like nowhere:model could not be imported"),
    ],
)
def test_a_skeleton_of_another_module_is_refused(saved, last, spec, says):
    code, _, err = last("inspect", saved, "--like", spec)
    assert code in (2, 3)
    assert re.search(says, " ".join(err.split())), err


def test_a_skeleton_for_a_file_with_names_is_refused(saved, tiny, last):
    (tiny.parent / "mine.py").write_text(MODULE)
    code, _, err = last("inspect", tiny, "--like", "mine:model")
    assert code == 2
    assert "--like names the leaves of .eqx files" in err


def test_the_optimizer_of_a_skeleton_goes(leaves, saved, tmp_path):
    moments = [leaves[0], leaves[17]] * 2
    (tmp_path / "t.eqx").write_bytes(eqx_bytes([*leaves, np.int32(3), *moments]))
    with containers.open_reader(tmp_path / "t.eqx", like=load_skeleton("mine:trained")) as reader:
        assert all(name.startswith("m/") for name in reader.tensors)
        assert "The optimizer state 'z_state' (5 tensors" in reader.dropped[0]
        copy(reader, tmp_path / "u.eqx", template=reader)
    assert (tmp_path / "u.eqx").read_bytes() == eqx_bytes(leaves)


def test_where_shapes_are_clear_no_skeleton_is_needed(saved, last):
    _, out, err = last("inspect", saved, "--json")
    assert [item["name"] for item in json.loads(out)["layers"]] == ["layers/0", "layers/1"], err
    code, _, err = last("prune", saved, "--states", "5", "--out", "small.eqx")
    assert code == 0, err
    assert sum(arrays_in(saved.parent / "small.eqx")[1][at].item() for at in (8, 16)) == 5
    assert last("verify", saved, "small.eqx")[0] == 0


def test_where_shapes_are_not_clear_a_skeleton_is_asked_for(tmp_path, last):
    (tmp_path / "m.eqx").write_bytes(eqx_bytes([np.ones((3, 4), "f4"), np.ones(4, "f4")]))
    code, _, err = last("inspect", tmp_path / "m.eqx")
    assert code == 4
    assert "give the module that was saved with --like module:function" in " ".join(err.split())
    # its bytes are still converted
    assert last("convert", tmp_path / "m.eqx", tmp_path / "m.safetensors")[0] == 0
    same_bits(contents(tmp_path / "m.safetensors"), {"leaves/0": np.ones((3, 4), "f4"), "leaves/1": np.ones(4, "f4")})


def test_content_tells_the_kind(tmp_path):
    many, one = eqx_bytes([np.ones(3), np.ones(2)]), eqx_bytes([np.ones(3)])
    for name, data in (("a", many), ("b", eqx_bytes([np.ones(3)], "{}")), ("c.eqx", one)):
        (tmp_path / name).write_bytes(data)
        assert containers.kind_of(tmp_path / name) == "equinox"
    (tmp_path / "d.npy").write_bytes(one)
    with pytest.raises(InputError, match="is a NumPy array"):
        containers.kind_of(tmp_path / "d.npy")


def test_every_kind_of_leaf(tmp_path):
    leaves = [
        np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(3).astype(ml_dtypes.bfloat16), True, 2**40, -0.5,
        1 + 2j, np.float32(3).reshape(()), np.zeros((0, 3), "f4"), np.ones(2, bool),
    ]  # fmt: skip
    (tmp_path / "m.eqx").write_bytes(eqx_bytes(leaves))
    with containers.open_reader(tmp_path / "m.eqx") as reader:
        extras = {name: value for name, value in reader.extras.items() if not name.startswith("last.")}
        assert extras == {"leaves/2": True, "leaves/3": 2**40, "leaves/4": -0.5, "leaves/5": 1 + 2j}
        assert reader.tensors["leaves/1"].dtype == "bfloat16"
        same_bits({name: reader.read(name) for name in reader.tensors}, {
            f"leaves/{at}": np.ascontiguousarray(leaves[at]).reshape(np.shape(leaves[at])) for at in (0, 1, 6, 7, 8)
        })  # fmt: skip
    put(
        tmp_path / "n.eqx",
        {"a": np.ones(3, ml_dtypes.float8_e4m3fn), "b": np.float64(2).reshape(())},
        extras={"c": 2.0},
    )
    with containers.open_reader(tmp_path / "n.eqx") as reader:
        assert {name: info.dtype for name, info in reader.tensors.items()} == {"a": "float8_e4m3fn", "b": "float64"}
        assert reader.extras["c"] == 2.0


def test_a_sidecar_of_another_file_is_refused(saved, tmp_path):
    put(tmp_path / "x.eqx", {"a": np.ones(2)})
    (tmp_path / "x.eqx").write_bytes(saved.read_bytes())
    with pytest.raises(InputError, match="has 18 leaves, but its description names 1"):
        containers.open_reader(tmp_path / "x.eqx")


def test_jax_names_lists_and_dictionaries(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = s5_module(np.random.default_rng(0))
    (tmp_path / "theirs.py").write_text(
        "import numpy as np\nfrom tests.builders.eqx import s5_module\n"
        "def module(): return s5_module(np.random.default_rng(1))\n"
    )
    (tmp_path / "m.eqx").write_bytes(eqx_bytes(jax.tree.leaves(module)))
    with containers.open_reader(tmp_path / "m.eqx", like=load_skeleton("theirs:module")) as reader:
        np.testing.assert_array_equal(reader.read("blocks/1/ssm/D"), module["blocks"][1]["ssm"]["D"])
    with pytest.raises(UsageError, match="has no function"):
        load_skeleton("theirs:modul")
    with open_checkpoint(tmp_path / "m.eqx") as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("layers/1/C"), module["blocks"][1]["ssm"]["D"])
        assert checkpoint.reader.extras["layers/0/P"] == 6


def test_inspecting_imports_neither_jax_nor_equinox(saved):
    code = (
        "import sys, lastcli\nr = lastcli.inspect('m.eqx')\nassert r.family == 's5'\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'jax', 'equinox', 'flax', 'torch'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=saved.parent)
    assert done.stdout.strip() == "[]"


def test_a_number_of_the_module_is_no_tensor_and_names_of_a_skeleton_are_its_own(saved):
    with containers.open_reader(saved) as reader:
        with pytest.raises(KeyError, match="leaves/7"):
            reader.load("leaves/7")
        like = reader.unnamed
    twice = [containers.TensorInfo("w", info.shape, info.dtype, info.nbytes) for info in like]
    with pytest.raises(InputError, match="two leaves of the skeleton have the same name, or one has none"):
        containers.open_reader(saved, like=twice)
