"""Bad inputs: one clear sentence, the exit code of its kind, and nothing that was there before is harmed."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.conftest import write_s5


def poison(role, value, index=0):
    def change(arrays):
        name = next(name for name in arrays if name.endswith(f"layers_1/seq/{role}"))
        arrays[name].reshape(-1)[index] = value

    return change


def fails(outcome, code, *words):
    exit_code, out, err = outcome
    assert exit_code == code, err
    lines = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in err, err
    assert out == ""


def test_a_missing_file(last, tmp_path):
    fails(last("score", tmp_path / "none.safetensors"), 3, "none.safetensors")


def test_a_file_cut_short_anywhere(last, tiny):
    whole = tiny.read_bytes()
    for size in (0, 4, 8, 64, len(whole) // 2, len(whole) - 1):
        cut = tiny.with_name("cut.safetensors")
        cut.write_bytes(whole[:size])
        fails(last("score", cut), 3, "cut.safetensors")


@pytest.mark.parametrize("role", ["Lambda_re", "B", "C", "log_step", "D"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_or_infinity_in_a_layer_names_layer_and_tensor(last, tiny, role, value):
    write_s5(tiny.with_name("bad.safetensors"), change=poison(role, value))
    fails(last("prune", "bad.safetensors", "--ratio", "0.5", "--out", "o.safetensors"), 3, "layers_1/seq", role)
    assert not tiny.with_name("o.safetensors").exists()


@pytest.mark.parametrize("real", [0.0, 0.4])
def test_an_unstable_pole_is_kept_and_said_or_refused_with_layer_and_state(last, tiny, real):
    def change(arrays):
        poison("Lambda_re", real, 2)(arrays)
        poison("Lambda_im", 0.0, 2)(arrays)

    write_s5(tiny.with_name("bad.safetensors"), change=change)
    fails(last("score", "bad.safetensors", "--refuse-unstable"), 4, "layers_1/seq", "state 2", "|λ|")
    fails(last("prune", "bad.safetensors", "--ratio", "0.5", "--dry-run", "--refuse-unstable"), 4, "state 2")
    for more in ([], ["--allow-unstable"]):
        code, out, err = last(
            "prune", "bad.safetensors", "--ratio", "0.8", "--out", "o.safetensors", "--force", "--json", "-q", *more
        )
        assert code == 0, err
        assert 2 in json.loads(out)["layers"][1]["kept"]


@pytest.mark.parametrize(
    ("x", "y", "word"),
    [
        (np.zeros((4, 9, 2), np.float32), [0, 1, 0, 1], "feature"),
        (np.zeros((4, 9, 3), np.float32), [0, 1, 2, 1], "label"),
        (np.zeros((4, 9, 3), np.float32), [0, 1, -1, 1], "label"),
        (np.full((4, 9, 3), np.nan, np.float32), [0, 1, 0, 1], "finite"),
        (np.zeros((4,), np.float32), [0, 1, 0, 1], "shape"),
        (np.zeros((0, 9, 3), np.float32), [], "empty"),
        (np.zeros((4, 9, 3), np.float32), [0, 1, 0], "examples"),
    ],
)
def test_data_that_does_not_fit_the_model(last, tiny, x, y, word):
    np.savez(tiny.with_name("bad.npz"), x=x, y=np.array(y, int))
    fails(last("eval", tiny, "--data", "bad.npz", "-q"), 3, "bad.npz", word)


def test_no_data_where_some_is_needed(last, tiny):
    fails(last("sweep", tiny, "-q"), 2, "--data")


@pytest.mark.parametrize("ratio", ["1.2", "-0.1", "half", "nan"])
def test_a_ratio_outside_0_to_1(last, tiny, ratio):
    fails(last("prune", tiny, f"--ratio={ratio}", "--out", "o.safetensors"), 2, "ratio")


def test_ratios_0_and_1_are_fine_and_no_layer_is_emptied(last, tiny):
    import json

    for ratio, states in (("0", 11), ("1", 2), ("100%", 2)):
        code, out, err = last("prune", tiny, "--ratio", ratio, "--dry-run", "--json", "-q")
        assert code == 0, err
        assert json.loads(out)["states_after"] == states


def test_an_unknown_key_in_a_recipe_is_suggested(last, tiny):
    tiny.with_name("r.yaml").write_text("ratoi: 0.3\n")
    fails(last("prune", tiny, "--recipe", "r.yaml", "--out", "o.safetensors"), 3, "ratoi", "ratio")
    tiny.with_name("m.yaml").write_text("discretisation: zoh\n")
    fails(last("score", tiny, "--model-config", "m.yaml"), 3, "discretisation", "discretization")
    fails(last("score", tiny, "--set", "bidirectonal=true"), 2, "bidirectonal", "bidirectional")


def test_a_description_that_contradicts_the_tensors(last, tiny):
    fails(last("score", tiny, "--set", "bidirectional=true"), 2, "bidirectional")


def test_swapped_axes_are_found_even_where_width_equals_states(last, tiny):
    """With P = H the shape of B alone proves nothing; the shape of C against D's and the pole count must still fit."""
    square = write_s5(tiny.with_name("square.safetensors"), sizes=(4, 4), width=4)
    assert last("prune", square, "--ratio", "0.5", "--out", "half.safetensors", "-q")[0] == 0
    assert last("verify", square, "half.safetensors", "-q")[0] == 0

    def swapped(arrays):
        name = next(name for name in arrays if name.endswith("layers_0/seq/B"))
        arrays[name] = np.ascontiguousarray(arrays[name].swapaxes(0, 1))

    bad = write_s5(tiny.with_name("swapped.safetensors"), sizes=(6, 5), width=4, change=swapped)
    fails(last("score", bad), 4, "layers_0/seq/B")


def test_optimizer_state_is_dropped_and_said(last, tiny, tmp_path):
    import msgpack

    from lastcli import containers

    last("convert", tiny, "bare.msgpack", "-q")
    tree = msgpack.unpackb(tiny.with_name("bare.msgpack").read_bytes(), strict_map_key=False)
    tree["opt_state"] = {"0": {"mu": tree["params"], "nu": tree["params"]}}
    tree["step"] = 7
    tiny.with_name("state.msgpack").write_bytes(msgpack.packb(tree))
    tiny.with_name("bare.json").rename(tiny.with_name("state.json"))
    code, _, err = last("prune", "state.msgpack", "--ratio", "0.5", "--out", "small.msgpack")
    assert code == 0, err
    assert "optimizer" in err.lower()
    with containers.open_reader(tiny.with_name("small.msgpack")) as reader:
        assert not any("opt_state" in name for name in reader.tensors)


def test_odd_counts_are_pruned_to_the_exact_number(last, tiny):
    import json

    odd = write_s5(tiny.with_name("odd.safetensors"), sizes=(7, 3, 1))
    _, out, _ = last("prune", odd, "--ratio", "0.55", "--dry-run", "--json", "-q")
    assert json.loads(out)["states_after"] == 4  # floor(11 · 0.45)


def test_an_output_that_is_there_is_kept_without_force(last, tiny):
    target = tiny.with_name("o.safetensors")
    target.write_bytes(b"precious")
    fails(last("prune", tiny, "--ratio", "0.5", "--out", target, "-q"), 5, "o.safetensors", "--force")
    assert target.read_bytes() == b"precious"
    assert last("prune", tiny, "--ratio", "0.5", "--out", target, "--force", "-q")[0] == 0
    assert target.read_bytes() != b"precious"


@pytest.mark.parametrize("link", [False, True])
def test_the_input_is_never_the_output(last, tiny, link):
    before = tiny.read_bytes()
    out = tiny
    if link:
        out = tiny.with_name("link.safetensors")
        out.symlink_to(tiny)
    fails(last("prune", tiny, "--ratio", "0.5", "--out", out, "--force", "-q"), 5, "input")
    fails(last("convert", tiny, out, "--force", "-q"), 5, "input")
    assert tiny.read_bytes() == before


def test_an_output_folder_that_is_missing(last, tiny):
    fails(last("prune", tiny, "--ratio", "0.5", "--out", "no/such/o.safetensors", "-q"), 5, "no/such")


def test_a_full_disk_leaves_no_half_file(tiny):
    target = tiny.with_name("o.safetensors")
    target.write_bytes(b"precious")
    code = (
        "import resource,sys\n"
        "from lastcli.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        f"main(['convert', {str(tiny)!r}, {str(target)!r}, '--force', '-q'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stderr
    assert target.read_bytes() == b"precious"
    assert sorted(path.name for path in tiny.parent.iterdir()) == ["o.safetensors", "tiny.safetensors"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_130_and_leaves_nothing(tiny, number):
    code = (
        "import lastcli.containers as c, time\n"
        "real = c.write\n"
        "def slow(path, sources, **kw):\n"
        "    first = sources[0].load\n"
        "    def load():\n"
        "        print('writing', flush=True); time.sleep(30); return first()\n"
        "    return real(path, [type(sources[0])(sources[0].info, load), *sources[1:]], **kw)\n"
        "c.write = slow\n"
        "from lastcli.cli import main\n"
        f"main(['convert', {str(tiny)!r}, 'o.safetensors', '-q'])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "writing"
    time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert [path.name for path in tiny.parent.iterdir()] == ["tiny.safetensors"]


def test_a_reader_that_has_seen_enough_is_no_error(tiny):
    command = f"{sys.executable} -m lastcli inspect {tiny} --json | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize(
    "variables", [{"TERM": "dumb"}, {"LANG": "C", "LC_ALL": "C"}, {"COLUMNS": "20"}, {"NO_COLOR": "1"}]
)
def test_poor_terminals_still_get_the_table(tiny, variables):
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONIOENCODING", "PYTHONUTF8")}
    done = subprocess.run(
        [sys.executable, "-m", "lastcli", "inspect", str(tiny)],
        capture_output=True,
        env={**environment, **variables},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"layers_1/seq" in done.stdout


def test_no_home_and_an_unwritable_cache_are_no_error(tiny, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "LAST_CACHE_DIR")}
    environment |= {"XDG_CACHE_HOME": "/proc/nowhere"}
    done = subprocess.run(
        [sys.executable, "-m", "lastcli", "score", str(tiny), "--json"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_wrong_words_on_the_command_line_are_usage_errors(last, tiny):
    for arguments in (["prune", tiny, "--ratoi", "0.3"], ["prun"], ["prune", tiny], ["prune", tiny, "--ratio", "0.3"]):
        assert last(*arguments)[0] == 2


def test_refits_that_need_inputs_say_so(last, tiny):
    fails(
        last("prune", tiny, "--ratio", "0.5", "--refit", "calibrated", "--out", "o.safetensors", "-q"),
        2,
        "--calibration",
    )


def test_what_a_command_prints_does_not_go_into_the_place_of_the_description(tiny):
    command = [sys.executable, "-m", "lastcli", "prune", str(tiny), "--ratio", "0.3", "--json", "--out"]
    with (tiny.parent / "small.json").open("w") as file:
        done = subprocess.run([*command, "small.msgpack"], stdout=file, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 5
    assert (
        "small.json is where the description of the output goes, and what this command prints goes there" in done.stderr
    )
    assert not (tiny.parent / "small.msgpack").exists()
    with (tiny.parent / "small.json").open("w") as file:
        done = subprocess.run([*command, "small.safetensors"], stdout=file, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([*command[:3], "inspect", "small.safetensors"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
