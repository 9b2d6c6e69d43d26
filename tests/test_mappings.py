import pytest

from lastcli.errors import InputError, UsageError
from lastcli.mappings import SIZE_LIMIT, convert, key_lines, load_mapping, parse_mapping, suggestion


def test_numbers_in_scientific_notation_are_numbers_where_a_number_is_meant():
    value = parse_mapping("a: 1e-3\n", "here")["a"]
    assert convert(value, float, "a") == 1e-3


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: &x 1\nb: *x\n", "alias"),
        ("a: 1\na: 2\n", "twice"),
        ("m: {k: 1, k: 2}\n", "twice"),
        ("a: !!python/object/apply:os.system [ls]\n", "YAML"),
        ("\ta: 1\n", "YAML"),
        ("a: \0\n", "YAML"),
        ("- 1\n- 2\n", "list"),
        ("just text\n", "str"),
        ("1: x\n", "not text"),
        ("a: [1, 2\n", "line"),
        ("? [a]\n: x\n", "not text"),
        ("2020-01-01: 1\n", "not text"),
        ("<<: {b: 1}\n", "not text"),
        ("a: {[b]: 1}\n", "not text"),
        ("a: {0.6: 1, '0.6': 2}\n", "twice"),
        ("a: !!set {x}\n", "tag"),
        ("a: !mine 3\n", "tag"),
        ("a: !!binary aGk=\n", "tag"),
        ("a: !!timestamp 2020-01-01\n", "tag"),
        (f"a: {'9' * 5000}\n", "5,000 digits"),
        (f"a: 0x{'f' * 5000}\n", "digits"),
        ("a: 0x_\n", "no number"),
        ("a: " + "[" * 100_000, "deep"),
        ("a: " + "[" * 60 + "]" * 60, "deep"),
        ("".join(f"k{i}: {{a: 1}}\n" for i in range(9000)), "entries"),
    ],
)
def test_yaml_that_is_no_plain_mapping_is_refused(text, word):
    with pytest.raises(InputError, match=word) as failure:
        parse_mapping(text, "recipe.yaml")
    assert "recipe.yaml" in str(failure.value)


@pytest.mark.parametrize(("text", "word"), [('{"a": 1, "a": 2}', "twice"), ("{", "line 1"), ("[" * 100_000, "deep")])
def test_json_that_is_no_plain_mapping_is_refused(text, word):
    with pytest.raises(InputError, match=word):
        parse_mapping(text, "model.json", is_json=True)


def test_keys_below_the_top_are_text():
    assert parse_mapping("a: {0.6: 1, yes: 2, 2020-01-01: 3}", "here") == {"a": {"0.6": 1, "yes": 2, "2020-01-01": 3}}


def test_a_date_is_text():
    assert parse_mapping("a: 2020-01-01\n", "here") == {"a": "2020-01-01"}


@pytest.mark.parametrize("value", [10**5000, "9" * 5000], ids=["int", "text"])
def test_a_number_of_five_thousand_digits_is_refused(value):
    with pytest.raises(InputError, match="a") as refused:
        convert(value, int, "a")
    assert len(str(refused.value)) < 200


def test_a_file_that_is_missing_large_or_no_text_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_mapping(tmp_path / "none.yaml")
    (tmp_path / "large.yaml").write_bytes(b"a" * (SIZE_LIMIT + 1))
    with pytest.raises(InputError, match="1 MiB"):
        load_mapping(tmp_path / "large.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(InputError, match="UTF-8"):
        load_mapping(tmp_path / "latin.yaml")


def test_every_key_of_the_first_two_levels_has_its_line(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 1\nb:\n  c: 2\n  [d]: 3\n  e:\n    f: 4\n")
    assert key_lines(tmp_path / "a.yaml") == {("a",): 1, ("b",): 2, ("b", "c"): 3, ("b", "e"): 5}


def test_an_empty_file_is_an_empty_mapping(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_mapping(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [("yes", bool, True), (False, bool, False), ("off", bool, False), ("3", int, 3), (3.0, int, 3), (2, float, 2.0)],
)
def test_values_are_read_as_the_kind_they_are(value, kind, expected):
    assert convert(value, kind, "x") == expected


@pytest.mark.parametrize(
    ("value", "kind"),
    [("maybe", bool), (3.5, int), ("x", float), (True, int), ([1], str), ("nan", float), (None, float)],
)
def test_values_of_another_kind_are_refused_by_name(value, kind):
    with pytest.raises(UsageError, match="the key"):
        convert(value, kind, "the key", UsageError)


def test_a_near_word_is_suggested_else_the_known_ones_are_listed():
    assert "'bidirectional'" in suggestion("bidirectonal", ["bidirectional", "mode"])
    assert "mode" in suggestion("zzz", ["bidirectional", "mode"])


def test_lines_of_keys_in_and_below_the_top(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("a: 1\nmodel:\n  family: s5\n  [b, c]: 2\n  norm: x\n")
    assert key_lines(path) == {("a",): 1, ("model",): 2, ("model", "family"): 3, ("model", "norm"): 5}
    path.write_text("- a\n")
    assert key_lines(path) == {}
