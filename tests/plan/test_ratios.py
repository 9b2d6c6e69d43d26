from decimal import Decimal

import pytest

from lastcli.errors import UsageError
from lastcli.plan.ratios import parse_ratio, parse_ratios


def test_both_ends_are_included_in_exact_decimals():
    grid = parse_ratios("0:0.8:0.1")
    assert grid == tuple(Decimal(k) / 10 for k in range(9))
    assert 1 - parse_ratio("0.55") == Decimal("0.45")


def test_an_end_between_two_steps_is_added():
    assert parse_ratios("0:0.5:0.2") == tuple(Decimal(x) for x in ("0", "0.2", "0.4", "0.5"))


def test_lists_percents_and_repeats():
    assert parse_ratios("0.6,33%,0,0.6") == (Decimal(0), Decimal("0.33"), Decimal("0.6"))
    assert parse_ratios([0.1, "20%"]) == (Decimal("0.1"), Decimal("0.2"))
    assert parse_ratios(0.3) == (Decimal("0.3"),)


@pytest.mark.parametrize("text", ["1.5", "-0.1", "nan", "inf", "half", "", "120%"])
def test_ratios_outside_0_to_1_are_refused(text):
    with pytest.raises(UsageError, match="ratio"):
        parse_ratio(text)


@pytest.mark.parametrize("text", ["0:0.8", "0:0.8:0", "0.8:0.1:0.1", "0:1:0.0001", ",", "a:b:c"])
def test_grids_that_make_no_sense_are_refused(text):
    with pytest.raises(UsageError, match=r"ratio"):
        parse_ratios(text)
