"""What "auto" stands for is settled when a checkpoint is opened, shown and written, and changes nothing computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lastcli import families
from lastcli.families.lru.family import LRU
from lastcli.model.description import Setting, gather, resolve
from tests.builders import lru
from tests.builders.equinox import equinox_model
from tests.builders.families import CASES
from tests.builders.named import Arrays, infos
from tests.builders.s4 import example_model, numbers, v3, v4
from tests.families.rebuilding import systems_of

RNG = np.random.default_rng(0)


def opened(arrays: Arrays, **flags: Any) -> dict[str, Setting]:
    description = gather(Path("none.safetensors"), {}, flags=flags, model_config=None, recipe={})
    return resolve(families.detect(infos(arrays)), infos(arrays), description)


def sandwiches(width: int = 4) -> Arrays:
    """DecodEPFL's blocks with a Lipschitz-bounded feed-forward network: `B`, and a forward pass that is not known."""
    arrays = {f"blocks.0.lru.{key}": a for key, a in lru.torch_layer(RNG, 6, width, width).items()}
    for i in (1, 2):
        arrays |= {f"blocks.0.ff.model.{i}.{leaf}": np.ones(8, "f4") for leaf in ("weight", "alpha", "psi")}
    return arrays | {"encoder.weight": np.ones((width, 1), "f4"), "decoder.weight": np.ones((1, width), "f4")}


@pytest.mark.parametrize(
    ("arrays", "delay", "source"),
    [
        (sandwiches(), "1", "tensors"),
        (lru.torch_model(RNG), "1", "tensors"),
        (lru.SPELLINGS["decodepfl"](RNG), "1", "tensors"),
        (lru.torch_model(RNG, bias=True), "0", "tensors"),
        (lru.minimal_lru(RNG), "0", "tensors"),
        (equinox_model("lru"), "0", "tensors"),
        (lru.SPELLINGS["torch"](RNG), "0", "assumed"),
    ],
    ids=["sandwich layers", "DeepSSM", "Bp", "DLRU", "minimal-LRU", "equinox", "a lone layer"],
)
def test_when_an_lru_reads_its_state(arrays: Arrays, delay: str, source: str) -> None:
    settings = opened(arrays)
    assert settings["delay"] == Setting(delay, source)
    config = {key: setting.value for key, setting in settings.items()}
    assert {system.delay for system in systems_of(LRU(), arrays, config)} == {int(delay)}
    other = "1" if delay == "0" else "0"
    assert opened(arrays, delay=other)["delay"] == Setting(other, "flag")


def test_an_old_description_that_says_auto_is_settled_too() -> None:
    assert opened(sandwiches(), delay="auto")["delay"] == Setting("1", "tensors")


@pytest.mark.parametrize(("spell", "rule"), [(v4, "zoh"), (v3, "bilinear")])
def test_the_rule_of_a_kernels_version_is_said(spell: Any, rule: str) -> None:
    arrays = example_model(RNG, [spell(numbers(RNG))], 4, level="layer." if spell is v4 else "")
    assert opened(arrays)["discretization"] == Setting(rule, "assumed")


@pytest.mark.parametrize(
    "case", [(name, case) for name in CASES for case in CASES[name]], ids=lambda case: f"{case[0]}: {case[1].name}"
)
def test_nothing_is_left_open_and_nothing_changes(case: Any) -> None:
    name, made = case
    arrays = made.build(np.random.default_rng(1))
    family = families.family_named(name)
    description = gather(Path("none.safetensors"), {}, flags=made.changes, model_config=None, recipe={})
    settings = resolve(family, infos(arrays), description)
    assert not [key for key, setting in settings.items() if setting.value == "auto" and setting.source != "idle"]
    config = {key: setting.value for key, setting in settings.items()}
    left = {
        key: "auto" if "auto" in option.choices else config[key] for option in family.options for key in [option.key]
    }
    left |= made.changes | {key: config[key] for key in family.infer(infos(arrays))}
    for got, wanted in zip(systems_of(family, arrays, config), systems_of(family, arrays, left), strict=True):
        for field in ("poles", "B", "C", "delay"):
            np.testing.assert_array_equal(getattr(got, field), getattr(wanted, field))
