import itertools

import pytest
from benchmarks.calibration import blocks


@pytest.mark.parametrize(
    ("total", "first", "examples", "count"), [(10000, 2000, 128, 8), (40, 10, 10, 3), (20, 5, 15, 1)]
)
def test_blocks_are_disjoint_and_none_is_measured(total, first, examples, count):
    found = blocks(total, first, examples, count)
    assert len(found) == count
    assert found[0][0] == first
    assert all(stop - start == examples for start, stop in found)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(found))
    assert found[-1][1] <= total
    assert count == 1 or found[-1][1] == total


def test_too_few_examples_are_said():
    with pytest.raises(SystemExit, match="30 examples are too few for the first 10 and 3 blocks of 10"):
        blocks(30, 10, 10, 3)
