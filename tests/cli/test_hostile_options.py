"""Options and recipes that make no sense end in one sentence and the exit code of their kind, never in 70."""

from __future__ import annotations

import pytest

from tests.cli.test_faults import fails

LONG = "x" * 300


@pytest.mark.parametrize(
    ("line", "code", "word"),
    [
        ("scale: 1e999999999", 2, "scale"),
        ("scale: 1e-999999999", 2, "scale"),
        (f"scale: {'9' * 5000}", 3, "digits"),
        ("scale: [1, 2]", 3, "text"),
        ("scale: 2020-01-01", 2, "scale"),
        ("seed: -1", 2, "--seed"),
        ("seed: !!int 3", 3, "tag"),
        ("ratio: 1e-999999999", 3, "digits"),
        ("ratio: 1e999999999999999999%", 3, "not a number"),
        ("ratio: !!set {a}", 3, "tag"),
        ("methods: [[last]]", 3, "method"),
        ("method: {last: 1}", 3, "method"),
        ("data: [a.npz]", 3, "text"),
        ("data: {a: b}", 3, "text"),
        (f"data: {LONG}.npz", 3, "x.npz"),
        (f"checkpoint: {LONG}", 3, "too long"),
        ("model: {3: 4}", 3, "no option '3'"),
        ("model: {[3]: 4}", 3, "not text"),
        ("3: 4", 3, "not text"),
        ("model: {conj_sym: [1]}", 3, "conj_sym"),
        ("model: " + "{a: " * 200 + "1" + "}" * 200, 3, "deep"),
        ("note: " + "[" * 500_000, 3, "deep"),
    ],
)
def test_recipes(line, code, word, last, tiny, data):
    own = {"data": "data: data.npz", "checkpoint": "checkpoint: tiny.safetensors"}
    rest = [text for key, text in own.items() if not line.startswith(key)]
    tiny.with_name("r.yaml").write_text("\n".join([*rest, line, ""]))
    fails(last("eval", "--recipe", "r.yaml", "-q"), code, word)


@pytest.mark.parametrize("size", ["9" * 75 + "GB", "9" * 400, "9" * 5000 + "TB", "-1", "0.0000001"])
def test_shard_sizes(size, last, tiny):
    fails(last("convert", tiny, "o", "--shard-size", size, "-q"), 2, "size")
    assert not tiny.with_name("o").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("inspect", LONG), 3, "too long"),
        (("convert", "tiny.safetensors", f"{LONG}.pt"), 5, "too long"),
        (("convert", "a\0b", "o.msgpack"), 3, "file name"),
        (("score", "tiny.safetensors", "--recipe", LONG), 3, "could not be read"),
        (("score", "tiny.safetensors", "--seed", "-1"), 2, "--seed"),
        (("eval", "tiny.safetensors", "--data", "data.npz", "--forward", f"{LONG}.py:f"), 2, "no file"),
    ],
)
def test_names_and_numbers(arguments, code, word, last, tiny, data):
    fails(last(*arguments, "-q"), code, word)


def test_a_file_with_the_longest_name_is_read(last, tiny):
    name = "x" * 243 + ".safetensors"
    tiny.rename(tiny.with_name(name))
    assert last("inspect", name, "-q")[0] == 0


def test_the_working_folder_as_a_checkpoint(last, tiny):
    code, _, err = last("inspect", ".", "-q")
    assert code in (0, 4), err
    assert "Bug" not in err


@pytest.mark.parametrize("key", ["history", "layers"])
def test_a_record_with_numbers_for_lists(key, last, tiny):
    import json

    from lastcli import containers
    from tests.containers.samples import copy

    with containers.open_reader(tiny) as reader:
        said = json.loads(reader.metadata["last.description"])
        reader.metadata = {"last.description": json.dumps({**said, "last": {"method": "last", key: 3}})}
        copy(reader, tiny.with_name("bad.safetensors"))
    fails(last("prune", "bad.safetensors", "--ratio", "0.5", "--out", "o.safetensors", "-q"), 3, f"last.{key}")
