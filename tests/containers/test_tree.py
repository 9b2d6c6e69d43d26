"""Trees of flat names: keys that were numbers become numbers again."""

import pytest

from lastcli.containers import tree
from lastcli.containers.extras import STRUCTURE_KEY


@pytest.mark.parametrize(
    ("key", "number"),
    [("7", 7), ("-3", -3), ("9" * 19, int("9" * 19)), ("9" * 20, "9" * 20), ("٣", "٣"), ("1.0", "1.0"), ("-", "-")],
)
def test_a_key_of_digits_is_a_number_where_the_structure_says_so(key, number):
    extras = {STRUCTURE_KEY: {"paths": {"w": ["layers", key]}, "integers": {"w": [1]}}}
    assert tree.path_of("w", extras) == ("layers", number)
