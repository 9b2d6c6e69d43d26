"""One small result of every verb, for the report tests."""

from __future__ import annotations

import numpy as np

from lastcli.results import (
    BenchResult,
    BenchRun,
    Check,
    ConfigValue,
    ConvertResult,
    EvalResult,
    InspectResult,
    LayerCertificate,
    LayerInfo,
    LayerPruned,
    LayerScore,
    PruneResult,
    ScoreResult,
    SearchResult,
    SearchStep,
    StepSpeedup,
    StepTime,
    SweepResult,
    SweepRow,
    VerifyResult,
)

LAYERS = ("encoder/layers_0/seq", "encoder/layers_1/seq", "encoder/layers_2/seq", "encoder/layers_3/seq")
LAST = (0.98, 0.98, 0.9633, 0.91, 0.86, 0.4367, 0.5267, 0.0967)
OBS = (0.98, 0.98, 0.98, 0.98, 0.98, 0.98, 0.957, 0.75)
RATIOS = (0.0, 0.1, 0.2, 0.5, 0.6, 0.7, 0.8, 0.9)
STEPS = ((1, 1.4e-05), (32, 8.8e-05))


def sweep_row(method: str, refit: str, ratio: float, value: float, baseline: float = 0.98) -> SweepRow:
    kept = round(128 * (1 - ratio))
    split = kept // 4
    return SweepRow(
        method=method,
        refit=refit,
        ratio=ratio,
        states=kept,
        value=value,
        drop=baseline - value,
        ci_low=max(value - 0.02, 0.0),
        ci_high=min(value + 0.015, 1.0),
        layers=(split + 2, split - 1, split - 1, kept - 3 * split),
        parameters=14410 - 90 * (128 - kept),
        p_value=0.5,
        max_difference=ratio * 12.345,
    )


def certificates() -> tuple[LayerCertificate, ...]:
    return tuple(
        LayerCertificate(
            name=name, states_before=32, states_after=9, hinf_error_bound=1.5, hinf_error=0.31, h2_error=0.0213
        )
        for name in LAYERS
    )


def sweep(methods: int = 1, **changes: object) -> SweepResult:
    rows = tuple(sweep_row("last", "none", r, v) for r, v in zip(RATIOS, LAST))
    if methods > 1:
        rows += tuple(sweep_row("obs", "calibrated", r, v) for r, v in zip(RATIOS, OBS))
    for i in range(2, methods):
        rows += tuple(sweep_row(f"method{i}", "h2", r, v) for r, v in zip(RATIOS, LAST))
    fields = {
        "checkpoint": "s5_digits.msgpack",
        "family": "s5",
        "metric": "accuracy",
        "baseline": 0.98,
        "n": 300,
        "rows": rows,
        "chosen": rows[5 if methods == 1 else len(RATIOS) + 5],
        "max_drop": 0.01,
        "baseline_ci": (0.957, 0.991),
        "states": 128,
        "parameters": 14410,
        "layer_names": LAYERS,
        "layer_states": (32, 32, 32, 32),
        "data": "s5_digits_test.npz",
    }
    return SweepResult(**(fields | changes))  # type: ignore[arg-type]


def inspect(name: str = "encoder/layers_0/seq") -> InspectResult:
    return InspectResult(
        checkpoint="s5_digits.msgpack",
        family="s5",
        title="S5 (flax)",
        container="msgpack",
        layers=tuple(
            LayerInfo(name=n, states=32, inputs=48, outputs=48, max_abs_pole=0.9987654, parameters=6336)
            for n in (name, *LAYERS[1:])
        ),
        states=128,
        parameters=44410,
        bytes=182906,
        config={
            "conj_sym": ConfigValue(value=True, source="sidecar"),
            "discretization": ConfigValue(value="zoh", source="assumed"),
        },
        tensors=48,
        dtypes={"float32": 48},
        notes=("The optimizer state is not carried on.",),
    )


def score(multi: bool = False) -> ScoreResult:
    generator = np.random.default_rng(0)
    shape = (3, 5) if multi else (1, 12)
    layers = tuple(
        LayerScore(
            name=name,
            states=shape[1],
            sets=shape[0],
            energy=generator.random(shape) * 10,
            score=generator.random(shape),
            max_abs_pole=0.99,
            multi=multi,
        )
        for name in LAYERS
    )
    return ScoreResult(
        checkpoint="m.safetensors", family="s5", method="last", criterion="hinf", allocation="adaptive", layers=layers
    )


def prune(**changes: object) -> PruneResult:
    fields: dict[str, object] = {
        "checkpoint": "s5_digits.msgpack",
        "family": "s5",
        "method": "obs",
        "refit": "calibrated",
        "ratio": 0.7,
        "states_before": 128,
        "states_after": 38,
        "parameters_before": 44410,
        "parameters_after": 26950,
        "bytes_before": 182906,
        "bytes_after": 109000,
        "layers": tuple(
            LayerPruned(
                name=name,
                states=9,
                states_before=32,
                kept=np.arange(9)[None],
                hinf_error_bound=float("inf"),
                hinf_error=0.12,
                h2_error=0.034,
            )
            for name in LAYERS
        ),
        "out": "small.safetensors",
    }
    return PruneResult(**(fields | changes))  # type: ignore[arg-type]


def search(met: bool = True) -> SearchResult:
    steps = (
        SearchStep(ratio=0.5, states=64, value=0.98, drop=0.0, within=True, p_value=1.0),
        SearchStep(ratio=0.75, states=32, value=0.96, drop=0.02, within=False, p_value=0.03),
    )
    return SearchResult(
        max_drop=0.01,
        metric="accuracy",
        n=300,
        baseline=0.98,
        value=0.98 if met else None,
        drop=0.0 if met else None,
        steps=steps,
    )


def evaluation() -> EvalResult:
    return EvalResult(
        checkpoint="s5_digits.msgpack",
        family="s5",
        metric="accuracy",
        value=0.98,
        n=300,
        ci_low=0.957,
        ci_high=0.991,
        data="s5_digits_test.npz",
    )


def verify(ok: bool = True) -> VerifyResult:
    return VerifyResult(
        original="a.msgpack",
        pruned="b.msgpack",
        ok=ok,
        max_abs_difference=3.1e-6,
        checks=(
            Check(name="shapes", ok=True, detail="48 tensors"),
            Check(name="equal outputs", ok=ok, detail="largest difference 3.1e-06, allowed 1e-05"),
        ),
        layers=certificates(),
    )


def convert() -> ConvertResult:
    return ConvertResult(
        checkpoint="a.msgpack",
        out="b.safetensors",
        container_before="msgpack",
        container_after="safetensors",
        tensors=48,
        bytes_before=182906,
        bytes_after=181000,
        family="s4",
        family_after="s4d",
    )


def bench() -> BenchResult:
    original = BenchRun(
        checkpoint="a.msgpack",
        states=128,
        parameters=44410,
        bytes=182906,
        latency=0.0477,
        latency_low=0.040,
        latency_high=0.114,
        throughput=6294.6,
        peak_memory=37578400,
        memory_kind="the allocator of the process",
        state_bytes=1024,
        multiply_adds=27992,
        state_multiply_adds=20992,
        step_latency=8.8e-05,
        steps=tuple(StepTime(batch_size=n, latency=t, latency_low=0.9 * t, latency_high=2 * t) for n, t in STEPS),
    )
    pruned = BenchRun(
        checkpoint="b.msgpack",
        states=38,
        parameters=26950,
        bytes=109000,
        latency=0.0301,
        latency_low=0.028,
        latency_high=0.05,
        throughput=9966.0,
        peak_memory=27578400,
        state_bytes=304,
        multiply_adds=13232,
        state_multiply_adds=6232,
        step_latency=6.3e-05,
        steps=tuple(StepTime(batch_size=n, latency=t / 2, latency_low=t / 3, latency_high=t) for n, t in STEPS),
    )
    return BenchResult(
        original=original,
        pruned=pruned,
        speedup=1.58,
        speedup_low=1.5,
        speedup_high=1.66,
        batch_size=300,
        length=64,
        repeats=30,
        device="cpu",
        step_speedups=tuple(StepSpeedup(batch_size=n, speedup=2.0) for n, _ in STEPS),
    )


def every() -> list[object]:
    return [
        inspect(),
        score(),
        score(multi=True),
        prune(search=search()),
        sweep(),
        sweep(2),
        evaluation(),
        verify(),
        convert(),
        bench(),
    ]
