"""What every container of the registry promises, whichever it is; a new entry is held to it by itself."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from lastcli import containers
from lastcli.containers import CONTAINERS, Container
from lastcli.errors import OutputError
from tests.containers.samples import contents, put, same_bits

ROOT = Path(__file__).parents[2]
DESCRIPTION = {"family": "s5", "conj_sym": True, "note": "ü"}
METADATA = {containers.DESCRIPTION_KEY: json.dumps(DESCRIPTION), "format": "np"}


def small() -> dict[str, np.ndarray]:
    """Random bits of the dtypes that models have, a scalar and an empty tensor among them."""
    rng = np.random.default_rng(1)
    shapes = {
        "params/half": ("float16", (3, 2)),
        "params/brain": (ml_dtypes.bfloat16, (5,)),
        "params/single": ("float32", (2, 3)),
        "params/complex": ("complex64", (4,)),
        "params/count": ("int32", (2,)),
        "params/scalar": ("float32", ()),
        "params/empty": ("float32", (0, 3)),
    }
    arrays = {}
    for name, (kind, shape) in shapes.items():
        dtype = np.dtype(kind)
        arrays[name] = rng.integers(0, 256, (*shape, dtype.itemsize), np.uint8).view(dtype).reshape(shape)
    return arrays | {"params/mask": np.array([True, False])}


@pytest.fixture(params=CONTAINERS)
def container(request) -> Container:
    if request.param == "torch":
        pytest.importorskip("torch")
    return CONTAINERS[request.param]


@pytest.fixture(params=[name for name, container in CONTAINERS.items() if container.write is not None])
def written(request) -> Container:
    if request.param == "torch":
        pytest.importorskip("torch")
    return CONTAINERS[request.param]


def out(container: Container, folder: Path, name: str = "x") -> Path:
    return folder / (name + "".join(container.suffixes[:1]))


def test_every_entry_says_what_it_is_and_where_it_is_described(container):
    assert CONTAINERS[container.name] is container
    assert container.title
    assert container.help
    assert not container.help.endswith(".")
    assert container.source.startswith("https://")
    page = (ROOT / container.page).read_text()
    assert container.title in page
    for suffix in container.suffixes:
        assert f"`{suffix}`" in page


def test_suffixes_are_of_one_container_each():
    suffixes = [suffix for container in CONTAINERS.values() for suffix in container.suffixes]
    assert len(suffixes) == len(set(suffixes))
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in suffixes)
    assert sum(container.is_folder for container in CONTAINERS.values()) == 1


def test_a_suffix_leads_to_its_container_and_content_leads_back(written, tmp_path):
    for suffix in written.suffixes or ("",):
        path = tmp_path / f"{written.name}{suffix}"
        assert containers.kind_for(path) == written.name
        put(path, small())
        bare = tmp_path / f"bare{suffix[1:]}"
        path.rename(bare)
        assert containers.kind_of(bare) == written.name


def test_bits_description_and_metadata_come_back(written, tmp_path):
    path = out(written, tmp_path)
    receipt = put(path, small(), METADATA, extras={"step": 3, "never": None})
    same_bits(contents(path), small())
    with containers.open_reader(path) as reader:
        assert reader.kind == receipt.kind == written.name
        own = {name: value for name, value in reader.extras.items() if not name.startswith("last.")}
        assert own == {"step": 3, "never": None}
        assert reader.metadata["format"] == "np"
        said = reader.metadata.get(containers.DESCRIPTION_KEY)
    if written.keeps_metadata:
        assert receipt.sidecar is None
        assert said is not None
        assert json.loads(said) == DESCRIPTION
    else:
        assert receipt.sidecar == path.with_suffix(".json")
        beside = json.loads(receipt.sidecar.read_text())
        assert {key: beside[key] for key in DESCRIPTION} == DESCRIPTION
    assert receipt.bytes == containers.stored_bytes(path)


def test_nothing_is_replaced_without_force(written, tmp_path):
    path = out(written, tmp_path)
    put(path, small())
    with pytest.raises(OutputError, match="give --force"):
        containers.check_output(path)
    with pytest.raises(OutputError, match="give --force"):
        put(path, {"other": np.ones(2)})
    same_bits(contents(path), small())
    put(path, {"other": np.ones(2)}, force=True)
    same_bits(contents(path), {"other": np.ones(2)})
    beside = [] if written.keeps_metadata else [path.with_suffix(".json")]
    assert sorted(tmp_path.iterdir()) == sorted([path, *beside])


def test_the_input_is_no_output_even_by_force(written, tmp_path):
    path = out(written, tmp_path)
    put(path, small())
    out(written, tmp_path, "link").symlink_to(path)
    for name, says in (("x", "this is the input;"), ("link", "this is the input")):
        with pytest.raises(OutputError, match=says):
            containers.check_output(out(written, tmp_path, name), inputs=[path], force=True)
    if not written.is_folder:
        out(written, tmp_path, "hard").hardlink_to(path)
        with pytest.raises(OutputError, match="the input under another name"):
            containers.check_output(out(written, tmp_path, "hard"), inputs=[path], force=True)
