"""The files a command writes beside what it prints: pages, pictures, cards, summaries, JUnit."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

SWEEP = ("sweep", "tiny.safetensors", "--ratios", "0,0.5", "--data", "data.npz")


@pytest.fixture
def here(tiny, data, monkeypatch):
    """A folder with `tiny` and its split, outside any job."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    return tiny.parent


def test_a_sweep_writes_its_page_with_command_recipe_files_and_hashes(last, here):
    code, out, err = last(*SWEEP, "--methods", "last,balanced", "--report", "report.html", "--json")
    assert (code, err) == (0, "")
    assert "anatomy" not in json.loads(out)
    page = (here / "report.html").read_text()
    for words in (
        "last sweep tiny.safetensors --ratios 0,0.5",
        "methods: [last, balanced]",
        "data.npz",
        "Poles: last at 50%",
    ):
        assert words in page, words
    assert len(re.findall(r"<td>[0-9a-f]{64}</td>", page)) == 2
    code, _, err = last(*SWEEP, "--report", "report.html")
    assert code == 5
    assert "report.html exists" in err
    assert last(*SWEEP, "--report", "report.html", "--force")[0] == 0


@pytest.mark.parametrize(
    ("verb", "flags"),
    [("inspect", ()), ("score", ()), ("prune", ("--method", "last", "--ratio", "0.5", "--out", "small.safetensors"))],
)
def test_other_verbs_write_pages_with_poles(last, here, verb, flags):
    code, _, err = last(verb, "tiny.safetensors", *flags, "--report", "page.html")
    assert (code, err) == (0, "")
    page = (here / "page.html").read_text()
    assert "Poles" in page
    assert ("Energies" in page) == (verb != "inspect")


@pytest.mark.parametrize("verb", ["inspect", "score"])
def test_inspect_and_score_are_drawn(last, here, verb):
    assert last(verb, "tiny.safetensors", "--plot", "picture.png")[0] == 0
    assert (here / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (("--report", "report.pdf"), 2, "report.pdf: a report is a page, written as .html"),
        (("--report", "a.html", "--junit", "./a.html"), 2, "a.html is named for two outputs"),
        (("--report", "no/a.html"), 5, "does not exist"),
        (("--junit", "data.npz"), 5, "data.npz exists"),
        (("--summary", "no/a.md"), 5, "no summary can be written there"),
        (("--plot", "a.bmp"), 2, ".png, .svg, .pdf"),
    ],
)
def test_places_are_refused_before_any_work(last, here, monkeypatch, flags, code, says):
    import lastcli.verbs.sweep

    monkeypatch.setattr(lastcli.verbs.sweep, "sweep", lambda *_, **__: pytest.fail("it ran"))
    found, out, err = last(*SWEEP, *flags)
    assert (found, out) == (code, "")
    assert says in err


def test_the_checkpoint_is_never_replaced_by_a_page(last, here):
    before = (here / "tiny.safetensors").read_bytes()
    assert last(*SWEEP, "--junit", "tiny.safetensors")[0] == 5
    assert (here / "tiny.safetensors").read_bytes() == before


def test_gates_have_an_exit_code_a_document_and_annotations(last, here, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    code, out, err = last(*SWEEP, "--fail-under", "1", "--junit", "gates.xml", "--json")
    assert code == 1
    result = json.loads(out)
    assert (result["passed"], result["fail_under"]) == (False, 1)
    assert [gate["kind"] for gate in result["gates"]] == ["baseline", "fail_under", "fail_under"]
    suite = ElementTree.parse(here / "gates.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("3", str(err.count("::error title=last sweep::")))
    assert err.count("::error") >= 2


def test_a_floor_of_zero_is_met_unless_the_full_model_is_worthless(last, here):
    result = json.loads(last(*SWEEP, "--fail-under", "0", "--json")[1])
    assert result["passed"] == (result["baseline_fault"] is None)
    assert all(gate["ok"] for gate in result["gates"] if gate["kind"] == "fail_under")


def test_eval_has_a_floor_too(last, here):
    code, out, _ = last("eval", "tiny.safetensors", "--data", "data.npz", "--fail-under", "1.0", "--junit", "e.xml")
    assert code == 1
    assert "Gate FAILED" in out
    assert ElementTree.parse(here / "e.xml").getroot().get("failures") != "0"


def test_a_floor_under_an_error_metric_is_refused(last, here):
    import numpy as np

    np.savez(here / "targets.npz", x=np.zeros((4, 9, 3), np.float32), y=np.zeros((4, 2), np.float32))
    arguments = ("--set", "task=regression", "--data", "targets.npz", "--fail-under", "0.5")
    code, out, err = last("eval", "tiny.safetensors", *arguments)
    assert (code, out) == (2, "")
    assert "--fail-under is a floor, and mse is better the lower it is" in err


def test_a_bad_file_is_an_annotation_in_a_job_and_stdout_stays_clean(last, here, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    code, out, err = last("sweep", "no%file.safetensors", "--data", "data.npz", "--json")
    assert (code, out) == (3, "")
    assert re.search(r"^::error title=last::.*no%25file", err, flags=re.MULTILINE)
    monkeypatch.delenv("GITHUB_ACTIONS")
    assert "::error" not in last("sweep", "no%file.safetensors", "--data", "data.npz")[2]


def test_summaries_are_appended_to_the_file_and_to_the_jobs_page(last, here, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(here / "job.md"))
    (here / "mine.md").write_text("# Before\n")
    assert last(*SWEEP, "--summary", "mine.md")[0] == 0
    mine, job = (here / "mine.md").read_text(), (here / "job.md").read_text()
    assert mine == f"# Before\n{job}"
    assert job.startswith("### last sweep\n")
    assert re.search(r"^\| +50% \|", job, flags=re.MULTILINE)
    assert last("eval", "tiny.safetensors", "--data", "data.npz", "--summary", str(here / "job.md"))[0] == 0
    assert (here / "job.md").read_text().count("### last eval") == 1


def test_a_card_stands_beside_the_output_and_is_replaced_only_where_it_is_ours(last, here):
    prune = ("prune", "tiny.safetensors", "--ratio", "0.5", "--out", "small.msgpack", "--card")
    assert last(*prune)[0] == 0
    card = (here / "README.md").read_text()
    for words in (
        "# small.msgpack",
        "Method last:",
        'msgpack_restore(Path("small.msgpack")',
        "lastcli.open('small.msgpack')",
        "last prune tiny.safetensors --ratio 0.5",
        "ratio: 0.5",
        "| output | small.msgpack |",
    ):
        assert words in card, words
    code, _, err = last(*prune)
    assert code == 5
    assert "README.md exists" in err
    assert last(*prune, "--force")[0] == 0
    (here / "README.md").write_text("# My project\n")
    code, _, err = last(*prune, "--force")
    assert code == 5
    assert "is no card that last wrote" in err
    assert (here / "README.md").read_text() == "# My project\n"


def test_a_card_needs_an_output(last, here):
    code, _, err = last("prune", "tiny.safetensors", "--ratio", "0.5", "--dry-run", "--card")
    assert code == 2
    assert "--card describes what --out writes" in err


def test_a_recipe_in_the_folder_makes_sweep_and_prune_need_no_arguments(last, here):
    (here / "last.yaml").write_text(
        "checkpoint: tiny.safetensors\ndata: data.npz\nratios: [0.25, 0.5]\nratio: 0.5\nout: small.safetensors\n"
    )
    code, out, err = last("sweep", "--json")
    assert code == 0
    assert "Recipe: last.yaml (found in this folder)." in err
    assert [row["ratio"] for row in json.loads(out)["rows"]] == [0.25, 0.5]
    code, out, err = last("prune", "--json")
    assert code == 0
    assert "Recipe: last.yaml" in err
    assert json.loads(out)["out"].endswith("small.safetensors")
    assert (here / "small.safetensors").exists()
    assert last("prune")[0] == 5
    assert last("prune", "--out", "other.safetensors")[0] == 0
