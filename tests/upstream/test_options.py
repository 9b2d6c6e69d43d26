"""Every project's layers against their definitions, one test an option."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from lastcli import families
from lastcli.families.s4.dplr import S4DPLR
from lastcli.families.s4.family import S4
from tests import oracles
from tests.builders.families import CASES, Case
from tests.builders.s4 import numbers, prefixed, v1, v2_diagonal, v3, v4
from tests.families.rebuilding import config_of, layers_of, systems_of
from tests.upstream import s4, s5
from tests.upstream.layers import DEFINED

LENGTH = 16
LAYERS = [(name, case) for name in DEFINED for case in CASES[name] if case.name != "initial state"]


def named(value: Any) -> str | None:
    return value.name if isinstance(value, Case) else None


@pytest.mark.parametrize(("name", "case"), LAYERS, ids=named)
def test_a_layer_is_what_its_project_defines(name: str, case: Case) -> None:
    arrays = case.build(np.random.default_rng(3))
    family = families.family_named(name)
    config = config_of(family, arrays, **case.changes)
    for layer, system in zip(layers_of(family, arrays, config), systems_of(family, arrays, config), strict=True):
        inputs = system.groups if system.multi else system.inputs
        u = np.random.default_rng(4).normal(size=(LENGTH, inputs))
        # The stored names' last parts are what the definitions know the tensors by.
        stored = {full.replace("/", ".").rpartition(".")[2]: arrays[full] for full in layer.tensors.values()}
        expected = DEFINED[name](stored, config, u)
        np.testing.assert_allclose(oracles.recurrence(system, u[None])[0], expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("case", CASES["s5"], ids=named)
def test_an_s5_layer_is_what_it_is_defined_as(case: Case) -> None:
    arrays = case.build(np.random.default_rng(3))
    family = families.family_named("s5")
    config = config_of(family, arrays, **case.changes)
    for layer, system in zip(layers_of(family, arrays, config), systems_of(family, arrays, config), strict=True):
        u = np.random.default_rng(4).normal(size=(LENGTH, system.inputs))
        expected = s5.recurrence(arrays, f"{layer.name}/", config, u)
        np.testing.assert_allclose(oracles.recurrence(system, u[None])[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("version", "rule", "n_ssm", "heads", "both"),
    list(itertools.product((v4, v3), ("zoh", "bilinear", "dss"), (4, 2, 1), (1, 2), (False, True))),
)
def test_a_diagonal_kernel_of_the_s4_repository(version: Any, rule: str, n_ssm: int, heads: int, both: bool) -> None:
    k = numbers(np.random.default_rng(5), S=n_ssm, heads=heads, both=both)
    arrays = prefixed(version(k), "blocks.0.layer.")
    length = LENGTH if rule == "dss" else 0
    config = config_of(S4(), arrays, discretization=rule, kernel_length=length)
    (system,) = systems_of(S4(), arrays, config)
    u = np.random.default_rng(6).normal(size=(LENGTH, 4))
    K = s4.softmax_kernel(k, LENGTH) if rule == "dss" else s4.diagonal_kernel(k, rule, LENGTH)
    expected = s4.convolve(K, k.D, u, both)
    np.testing.assert_allclose(oracles.recurrence(system, u[None])[0], expected, atol=2e-5)


@pytest.mark.parametrize(
    ("version", "rank", "n_ssm", "both", "trained"),
    list(itertools.product((v4, v3), (1, 2), (4, 2, 1), (False, True), (0, 24))),
)
def test_a_low_rank_kernel_of_the_s4_repository(version: Any, rank: int, n_ssm: int, both: bool, trained: int) -> None:
    k = numbers(np.random.default_rng(7), S=n_ssm, rank=rank, both=both)
    stored = dataclasses.replace(k, C=s4.transformed(k, trained)) if trained else k
    arrays = prefixed(version(stored, length=trained), "blocks.0.layer.")
    (system,) = systems_of(S4DPLR(), arrays, config_of(S4DPLR(), arrays, form="s4"))
    u = np.random.default_rng(8).normal(size=(LENGTH, 4))
    expected = s4.convolve(s4.dense_kernel(k, LENGTH), k.D, u, both)
    np.testing.assert_allclose(oracles.recurrence(system, u[None])[0], expected, atol=2e-4)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("n_ssm", [4, 1])
def test_the_diagonal_kernel_of_v2_has_no_b(n_ssm: int, both: bool) -> None:
    k = numbers(np.random.default_rng(9), S=n_ssm, both=both)
    arrays = prefixed(v2_diagonal(k), "blocks.0.layer.")
    (system,) = systems_of(S4(), arrays, config_of(S4(), arrays))
    u = np.random.default_rng(10).normal(size=(LENGTH, 4))
    expected = s4.convolve(s4.diagonal_kernel(k, "zoh", LENGTH, np.ones_like(k.B)), k.D, u, both)
    np.testing.assert_allclose(oracles.recurrence(system, u[None])[0], expected, atol=2e-5)


@pytest.mark.parametrize("n_ssm", [4, 1])
def test_the_low_rank_kernel_of_v2_names_its_poles_w(n_ssm: int) -> None:
    k = numbers(np.random.default_rng(11), S=n_ssm)
    stored = dataclasses.replace(k, C=s4.transformed(k, 24))
    arrays = prefixed(v3(stored, length=24, poles="log", flat_dt=True), "blocks.0.layer.")
    (system,) = systems_of(S4DPLR(), arrays, config_of(S4DPLR(), arrays))
    u = np.random.default_rng(12).normal(size=(LENGTH, 4))
    expected = s4.convolve(s4.dense_kernel(k, LENGTH), k.D, u)
    np.testing.assert_allclose(oracles.recurrence(system, u[None])[0], expected, atol=2e-4)


@pytest.mark.parametrize("ratio", [1.0, 1.1])
def test_the_low_rank_kernel_of_v1_has_a_q_of_its_own(ratio: float) -> None:
    k = numbers(np.random.default_rng(13))
    Q = k.P.conj() * np.float32(ratio)
    stored = dataclasses.replace(k, C=s4.transformed(k, 24, Q))
    arrays = prefixed(v1(stored, Q, 24), "blocks.0.layer.")
    (system,) = systems_of(S4DPLR(), arrays, config_of(S4DPLR(), arrays))
    u = np.random.default_rng(14).normal(size=(LENGTH, 4))
    expected = s4.convolve(s4.dense_kernel(k, LENGTH, Q), k.D, u)
    np.testing.assert_allclose(oracles.recurrence(system, u[None])[0], expected, atol=2e-4)


TRANSFORMS = [
    ("dt_transform", "softplus"),
    ("dt_transform", "exp"),
    ("real_transform", "exp"),
    ("real_transform", "softplus"),
    ("real_transform", "none"),
    ("real_transform", "relu"),
    ("real_transform", "sigmoid"),
]


@pytest.mark.parametrize(("option", "value"), TRANSFORMS)
def test_a_transformed_parameter_of_the_s4_repository(option: str, value: str) -> None:
    k = numbers(np.random.default_rng(15))
    arrays = prefixed(v4(k, **{option: value}), "blocks.0.layer.")
    (system,) = systems_of(S4(), arrays, config_of(S4(), arrays, **{option: value}))
    u = np.random.default_rng(16).normal(size=(LENGTH, 4))
    expected = s4.convolve(s4.diagonal_kernel(k, "zoh", LENGTH), k.D, u)
    np.testing.assert_allclose(oracles.recurrence(system, u[None])[0], expected, atol=2e-5)
