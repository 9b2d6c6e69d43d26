"""`last recipe check|show|init|schema`, as typed."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from jsonschema import Draft202012Validator

from lastcli import containers
from lastcli.containers.base import TensorSource
from lastcli.families.base import Option
from lastcli.mappings import load_mapping
from lastcli.report.recipes import draft_yaml
from lastcli.results import DraftRecipe
from lastcli.verbs.recipes.init import _output
from lastcli.verbs.recipes.schema import _of_option
from tests.builders.families import CASES, SELECTIVE
from tests.conftest import write_s5

ALL = {**CASES, **SELECTIVE}


def write(path, text):
    path.write_text(text)
    return path


def problems(last, *arguments):
    """Exit code and {key: (line, sentence)} of a check."""
    code, out, _ = last("recipe", "check", *arguments, "--json")
    recipes = json.loads(out)["recipes"]
    return code, {one["key"]: (one["line"], one["message"]) for recipe in recipes for one in recipe["problems"]}


# init


@pytest.mark.parametrize(
    ("family", "case"),
    [(name, case) for name, cases in ALL.items() for case in cases[:2]],
    ids=lambda part: str(part)[:40],
)
def test_a_recipe_for_a_model_of_any_family_is_in_order(last, tmp_path, monkeypatch, family, case):
    monkeypatch.chdir(tmp_path)
    arrays = case.build(np.random.default_rng(0))
    metadata = {"last.description": json.dumps({"family": family, **case.changes})}
    containers.write(
        tmp_path / "m.safetensors", [TensorSource.of(name, array) for name, array in arrays.items()], metadata=metadata
    )
    assert last("recipe", "init", "m.safetensors", "-q") == (0, "", "")
    code, out, _ = last("recipe", "check")
    assert code == 0, out
    recipe = load_mapping(tmp_path / "last.yaml")
    assert recipe["model"].items() >= {"family": family}.items()
    assert Draft202012Validator(json.loads(last("recipe", "schema")[1])).is_valid(recipe)


def test_a_recipe_runs_once_its_data_is_filled_in(last, tiny, data):
    assert last("recipe", "init", tiny)[0] == 0
    assert last("sweep")[0] == 2  # no data yet, and it says so
    text = (tiny.parent / "last.yaml").read_text()
    assert "x (n, L, 3)" in text
    assert "whole numbers below" in text
    filled = text.replace("# data: test.npz", f"data: {data.name}").replace("ratios: 0:0.9:0.1", "ratios: 0.5")
    write(tiny.parent / "last.yaml", filled)
    assert last("recipe", "check")[0] == 0
    code, out, err = last("sweep", "--json")
    assert code == 0, err
    assert {row["method"] for row in json.loads(out)["rows"]} == {"last", "aire", "obs"}
    assert last("prune")[0] == 0
    assert last("verify", tiny, "tiny-small.safetensors")[0] == 0


@pytest.mark.parametrize(
    ("build", "family", "said"),
    [
        (CASES["s5"][0].build, "s5", ["x (n, L, ", "y (n,) classes", "# metric: accuracy", "# scale: 1/255"]),
        (SELECTIVE["mamba"][0].build, "mamba", ["tokens, whole numbers below", "next token", "# metric: perplexity"]),
        (CASES["s4"][0].build, "s4", ["your own `forward`", "# forward: mine.py:forward"]),
    ],
)
def test_the_data_are_described_as_the_model_takes_them(last, tmp_path, monkeypatch, build, family, said):
    monkeypatch.chdir(tmp_path)
    arrays = build(np.random.default_rng(0))
    metadata = {"last.description": json.dumps({"family": family})}
    containers.write(tmp_path / "m.safetensors", [TensorSource.of(n, a) for n, a in arrays.items()], metadata=metadata)
    assert last("recipe", "init", "m.safetensors", "-q")[0] == 0
    text = (tmp_path / "last.yaml").read_text()
    unfolded = " ".join(text.replace("\n# ", " ").split())
    for words in said:
        assert words in text or words in unfolded
    assert ("# scale" in text) == (family == "s5")


def test_what_a_comment_leaves_open_may_be_taken_as_it_stands(last, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_s5(tmp_path / "m.safetensors", describe=False)
    assert last("recipe", "init", "m.safetensors", "-q")[0] == 0
    text = (tmp_path / "last.yaml").read_text()
    assert "  # activation: half_glu1" in text.splitlines()
    assert "full_glu, half_glu1, half_glu2" in text
    settled = re.sub(r"^  # (\w+: \S+)$", r"  \1", text, flags=re.MULTILINE)
    write(tmp_path / "last.yaml", settled)
    before, after = (set(yaml.safe_load(one)["model"]) for one in (text, settled))
    assert before < after
    assert after - before >= {"activation", "task", "clip_eigs"}
    assert last("recipe", "check")[0] == 0


def test_what_is_settled_on_the_way_is_in_the_recipe(last, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_s5(tmp_path / "m.safetensors", describe=False)
    (tmp_path / "sub").mkdir()
    code, out, err = last(
        "recipe", "init", "m.safetensors", "--set", "activation=half_glu2", "--out", "sub/r.yaml", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["schema"] == "last.recipe-init/1"
    recipe = load_mapping(tmp_path / "sub" / "r.yaml")
    assert recipe["model"]["activation"] == "half_glu2"
    assert recipe["checkpoint"] == "../m.safetensors"
    assert last("recipe", "check", "sub/r.yaml")[0] == 0


def test_a_recipe_is_not_replaced_and_a_schema_is_named_for_editors(last, tiny):
    assert last("recipe", "init", tiny, "-q")[0] == 0
    before = (tiny.parent / "last.yaml").read_text()
    code, _, err = last("recipe", "init", tiny, "--schema")
    assert (code, (tiny.parent / "last.yaml").read_text()) == (5, before)
    assert "--force" in err
    assert not (tiny.parent / "last.schema.json").exists()
    assert last("recipe", "init", tiny, "--schema", "--force")[0] == 0
    first = (tiny.parent / "last.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=last.schema.json"
    assert (tiny.parent / "last.schema.json").read_text() == last("recipe", "schema")[1]


def test_what_is_no_model_gets_no_recipe(last, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "m.npz", x=np.zeros(3))
    assert last("recipe", "init", "m.npz")[0] == 3
    containers.write(tmp_path / "m.safetensors", [TensorSource.of("w", np.zeros(3, np.float32))], metadata={})
    assert last("recipe", "init", "m.safetensors")[0] == 4
    assert not (tmp_path / "last.yaml").exists()


# check


def test_every_mistake_is_named_with_its_line(last, tmp_path):
    recipe = write(
        tmp_path / "r.yaml",
        "metod: last\nratio: 1.5\nmodel:\n  family: s5\n  activaton: gelu\n  norm: odd\nlayout: loose\n",
    )
    code, found = problems(last, recipe)
    assert code == 3
    assert {key: line for key, (line, _) in found.items()} == {
        "metod": 1,
        "ratio": 2,
        "model.activaton": 5,
        "model.norm": 6,
        "layout": 7,
    }
    assert "'method'" in found["metod"][1]
    assert "'activation'" in found["model.activaton"][1]
    assert "batch, layer" in found["model.norm"][1]
    code, out, _ = last("recipe", "check", recipe)
    assert code == 3
    assert out.splitlines()[0] == f"{recipe}:1: unknown key 'metod'. Did you mean 'method'?"
    rows = list(csv.DictReader(io.StringIO(last("recipe", "check", recipe, "--csv")[1])))
    assert [row["line"] for row in rows] == ["1", "2", "5", "6", "7"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("allow_unstable: true\nrefuse_unstable: true", "allow_unstable"),
        ("states: 0", "states"),
        ("method: best\nratio: 0.5", "method"),
        ("budget: soon\nmethod: best\nmax_drop: 0.1", "budget"),
        ("model: {family: s9}", "model.family"),
        ("published: {full: 1}", "published"),
        ("- a list", ""),
        ("a: [1", ""),
        ("ratio: 0.5\nratio: 0.6", ""),
    ],
)
def test_text_alone_shows_what_cannot_run(last, tmp_path, text, key):
    code, found = problems(last, write(tmp_path / "r.yaml", text), "--no-files")
    assert code == 3
    assert list(found) == [key]


def test_several_recipes_are_checked_at_once(last, tmp_path):
    good, bad = write(tmp_path / "good.yaml", "ratio: 0.5\n"), write(tmp_path / "bad.yaml", "ratoi: 0.5\n")
    code, out, _ = last("recipe", "check", good, bad, tmp_path / "none.yaml")
    assert code == 3
    lines = out.splitlines()
    assert lines[0] == f"{good}: in order."
    assert [line for line in lines if line.startswith((f"{bad}:1:", f"{tmp_path / 'none.yaml'}:"))]
    assert lines[-1] == "2 of 3 recipes cannot run as they are."
    assert last("recipe", "check", good)[0] == 0


def test_files_that_are_not_there_are_all_named(last, tmp_path):
    text = "checkpoint: m.pth\ndata: d.npz\ncalibration: c.npz\nforward: none.py:f\nout: no/where.pth\n"
    code, found = problems(last, write(tmp_path / "r.yaml", text))
    assert code == 3
    assert set(found) == {"checkpoint", "data", "calibration", "forward", "out"}
    assert problems(last, tmp_path / "r.yaml", "--no-files") == (0, {})


@pytest.mark.parametrize("name", ['"a\\0b"', "a" * 5000])
def test_a_path_that_cannot_be_one_is_not_there(last, tmp_path, name):
    keys = ("checkpoint", "data", "calibration", "layer_inputs", "out")
    for key in keys:
        path = name.replace("a", "n/a", 1) if key == "out" else name
        code, found = problems(last, write(tmp_path / "r.yaml", f"{key}: {path}\n"))
        assert (code, list(found)) == (3, [key])


def test_a_job_on_github_sees_mistakes_beside_their_lines(last, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "r.yaml", "seed: 1\nratoi: 0.5\n")
    _, out, err = last("recipe", "check", "r.yaml")
    said = "unknown key 'ratoi'. Did you mean 'ratio'?"
    assert err.splitlines() == [f"::error file=r.yaml,line=2,title=last recipe check::{said}"]
    assert out.splitlines()[0] == f"r.yaml:2: {said}"


@pytest.mark.parametrize(
    ("more", "key", "code"),
    [
        ("data: data.npz", None, 0),
        ("data: data.npz\nmetric: mse", "metric", 3),
        ("data: data.npz\nmetric: acuracy", "metric", 3),
        ("data: wide.npz", "data", 3),
        ("data: damaged.npz", "data", 3),
        ("data: data.npz:train", "data", 3),
        ("calibration: wide.npz", "calibration", 3),
        ("data: data.npz\ncalibration: split:0.5", None, 0),
        ("calibration: split:0.5", "calibration", 3),
        ("method: contribution", "method", 3),
        ("method: obs\nrefit: calibrated", "refit", 3),
        ("method: obs\nrefit: calibrated\ncalibration: data.npz", None, 0),
        ("method: balanced\nrefit: calibrated\ncalibration: data.npz", "refit", 3),
        ("refit: calibrated+B\ncalibration: data.npz", "refit", 4),
        ("model: {family: mamba}", "checkpoint", 4),
        ("name: other", "checkpoint", 3),
    ],
)
def test_the_model_and_the_data_are_held_against_it(last, tiny, data, more, key, code):
    np.savez(tiny.parent / "wide.npz", x=np.zeros((4, 9, 5), np.float32), y=np.array([0, 1, 0, 1]))
    (tiny.parent / "damaged.npz").write_bytes(data.read_bytes()[:200])
    text = f"checkpoint: {tiny.name}\n{more}\n"
    found_code, found = problems(last, write(tiny.parent / "r.yaml", text))
    assert (found_code, list(found)) == (code, [] if key is None else [key]), found


def test_a_model_that_is_not_supported_has_its_own_code(last, tmp_path):
    containers.write(tmp_path / "m.safetensors", [TensorSource.of("w", np.zeros(3, np.float32))], metadata={})
    assert problems(last, write(tmp_path / "r.yaml", "checkpoint: m.safetensors\n"))[0] == 4


def test_no_code_is_run(last, tiny):
    write(tiny.parent / "mine.py", "open('ran', 'w')\ndef f(): pass\n")
    text = f"checkpoint: {tiny.name}\ndata: mine.py:f\nforward: {tiny.parent}/mine.py:f\n"
    code, found = problems(last, write(tiny.parent / "r.yaml", text))
    assert (code, found) == (0, {})
    assert problems(last, write(tiny.parent / "r.yaml", f"checkpoint: {tiny.name}\nlike: mine:f\n"))[0] == 0
    assert not (tiny.parent / "ran").exists()


def test_no_other_process_is_waited_for(last, tiny):
    text = f"checkpoint: {tiny.name}\ncoordinator: 127.0.0.1:9\nnum_processes: 2\nprocess_id: 0\n"
    assert problems(last, write(tiny.parent / "r.yaml", text))[0] == 0
    assert last("recipe", "show", "r.yaml", "--json")[0] == 0


# show


def options_of(last, *arguments):
    code, out, err = last("recipe", "show", *arguments, "--json")
    assert code == 0, err
    document = json.loads(out)
    return document, {key: (one["value"], one["source"]) for key, one in document["options"].items()}


def test_every_value_has_its_source(last, tiny, data):
    recipe = write(
        tiny.parent / "r.yaml",
        f"checkpoint: {tiny.name}\nratio: 40%\nmethods: last,aire\nmodel: {{family: s5, step_rescale: 2.0}}\n",
    )
    document, options = options_of(last, recipe, "--method", "obs", "--data", data, "--min-states", 2)
    assert document["schema"] == "last.recipe-show/1"
    assert document["recipe"] == str(recipe)
    assert options["ratio"] == (0.4, "recipe")
    assert options["method"] == ("obs", "flag")
    assert options["methods"] == (None, "default")  # the flag took its place
    assert options["data"] == (str(data), "flag")
    assert options["min_states"] == (2, "flag")
    assert options["layout"] == ("ragged", "family")
    assert options["refit"] == ("h2", "method")
    assert options["steps"] == (1, "default")
    model = {key: (one["value"], one["source"]) for key, one in document["model"].items()}
    assert model["step_rescale"] == (2.0, "recipe")
    assert model["activation"] == ("half_glu1", "file")
    _, options = options_of(last, recipe, "--calibration", data, "--method", "obs")
    assert options["refit"] == ("calibrated", "method")


def test_the_file_of_the_folder_and_the_bundled_model_are_found(last, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, options = options_of(last)
    assert options["checkpoint"] == ("bundled", "bundled")
    assert options["data"] == ("bundled:test", "bundled")
    write_s5(tmp_path / "model.safetensors")
    assert options_of(last)[1]["checkpoint"] == ("model.safetensors", "found")
    write(tmp_path / "last.yaml", "ratio: 0.25\n")
    assert options_of(last)[1]["ratio"] == (0.25, "recipe")


def test_a_plan_without_its_checkpoint_is_shown_as_far_as_it_goes(last, tmp_path):
    recipe = write(tmp_path / "r.yaml", "checkpoint: none.pth\nmethod: aire\nmodel: {family: s5, norm: layer}\n")
    document, options = options_of(last, recipe, "--set", "mode=pool")
    assert options["method"] == ("aire", "recipe")
    assert {key: one["source"] for key, one in document["model"].items()} == {
        "family": "recipe",
        "norm": "recipe",
        "mode": "flag",
    }
    assert "none.pth" in document["notes"][0]


def test_the_table_says_which_recipe_and_leaves_out_what_is_not_set(last, tiny):
    write(tiny.parent / "r.yaml", f"checkpoint: {tiny.name}\nratio: 0.4\nallow_inexact: true\n")
    _, out, _ = last("recipe", "show", "r.yaml")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert rows["ratio"] == ["0.4", "recipe", "r.yaml"]
    assert rows["allow_inexact"] == ["true", "recipe", "r.yaml"]
    assert rows["layout"][0] == "ragged"
    assert "threshold" not in rows
    assert "threshold" in out.splitlines()[-1]


def test_a_wrong_recipe_or_flag_is_what_it_is_elsewhere(last, tmp_path):
    assert last("recipe", "show", write(tmp_path / "r.yaml", "ratoi: 1\n"))[0] == 3
    assert last("recipe", "show", "--ratio", "2")[0] == 2
    assert last("recipe")[0] == 2
    assert last("recipe", "chekc")[0] == 2


# published numbers in a run


def test_a_sweep_has_the_numbers_of_its_recipe(last, tiny, data):
    block = "published: {source: a paper, full: 0.9, methods: {last: {0.5: 0.8}}}\n"
    write(
        tiny.parent / "r.yaml", f"checkpoint: {tiny.name}\ndata: {data.name}\nratios: 0.5\nmethods: last,aire\n{block}"
    )
    code, out, err = last("sweep", "--recipe", "r.yaml", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert [row["published"] for row in document["rows"]] == [0.8, None]
    assert document["published"]["full"] == 0.9
    refitted = json.loads(last("sweep", "--recipe", "r.yaml", "--refit", "h2", "--json")[1])
    assert [row["published"] for row in refitted["rows"]] == [None, None]  # a paper refits nothing
    other = json.loads(last("sweep", "--recipe", "r.yaml", "--metric", "nll", "--json")[1])
    assert other["published"] is None
    assert any("published numbers are of accuracy" in note for note in other["notes"])


def test_kept_rows_go_on_with_other_published_numbers(last, tiny, data):
    base = f"checkpoint: {tiny.name}\ndata: {data.name}\nratios: 0.5\nresume: rows.jsonl\n"
    write(tiny.parent / "r.yaml", base)
    assert last("sweep", "--recipe", "r.yaml")[0] == 0
    write(tiny.parent / "r.yaml", base + "published: {source: a paper, methods: {last: {0.5: 0.8}}}\n")
    code, out, err = last("sweep", "--recipe", "r.yaml", "--json")
    assert code == 0, err
    assert json.loads(out)["rows"][0]["published"] == 0.8


@pytest.mark.parametrize("verb", ["show", "schema"])
def test_looking_at_a_recipe_imports_nothing_heavy(tmp_path, verb):
    write_s5(tmp_path / "m.safetensors")
    recipe = write(tmp_path / "r.yaml", "checkpoint: m.safetensors\nratio: 0.5\n")
    arguments = ["recipe", verb, *([] if verb == "schema" else [str(recipe)])]
    code = (
        f"import sys\nfrom lastcli.cli import main\ntry:\n    main({arguments!r})\nexcept SystemExit as end:\n"
        "    assert not end.code\nprint([n for n in ('jax', 'flax', 'torch') if n in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


# parts


def test_what_contradicts_itself_is_said_before_any_file_is_opened(last, tmp_path):
    text = "checkpoint: none.pth\nallow_unstable: true\nrefuse_unstable: true\n"
    code, found = problems(last, write(tmp_path / "r.yaml", text))
    assert (code, list(found)) == (3, ["allow_unstable"])


def test_best_chooses_method_and_refit_itself(last, tiny, data):
    text = f"checkpoint: {tiny.name}\nmethod: best\nmax_drop: 0.1\ndata: {data.name}\n"
    assert problems(last, write(tiny.parent / "r.yaml", text)) == (0, {})


def test_a_layout_that_was_said_is_not_the_familys(last, tiny):
    _, options = options_of(last, write(tiny.parent / "r.yaml", f"checkpoint: {tiny.name}\nlayout: padded\n"))
    assert options["layout"] == ("padded", "recipe")


def test_an_option_without_a_default_has_none_in_the_schema():
    assert "default" not in _of_option(Option("size", int, None, "how large"))
    assert _of_option(Option("size", int, 4, "how large"))["default"] == 4


@pytest.mark.parametrize(
    ("kind", "name", "out"),
    [
        ("pickle", "m.ckpt", "m-small.safetensors"),
        ("torch", "m.ckpt", "m-small.ckpt"),
        ("torch", "m.bin", "m-small.pt"),
        ("orbax", "step", "step-small"),
    ],
)
def test_prune_writes_what_it_read_where_that_can_be_written(tmp_path, kind, name, out):
    path = tmp_path / name
    path.mkdir() if kind == "orbax" else path.write_bytes(b"")
    assert _output(SimpleNamespace(reader=SimpleNamespace(kind=kind), path=path), bundled=False) == out


def test_a_first_recipe_says_how_the_model_is_named_and_mapped():
    draft = DraftRecipe(
        checkpoint="m.pt", about="a model", family="s4d", options=(), map={"layers": "net.*"}, naming={"name": "ema"},
        data=None, calibration=None, x="x (n, L)", y="y (n,)", metric=None, integers=False, methods=("last",),
        out="s.pt",
    )  # fmt: skip
    found = yaml.safe_load(draft_yaml(draft, "last.yaml"))
    assert (found["name"], found["model"]) == ("ema", {"family": "s4d", "layers": "net.*"})
