"""Inputs to calibrate on that are drawn, where none of the model's own are at hand (`--calibration drawn`)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from lastcli.errors import UsageError
from lastcli.plan.drawn import DRAWN, LENGTH, parse_drawn

if TYPE_CHECKING:
    from lastcli.evaluation.data import Split
    from lastcli.families.base import Forward

__all__ = ["drawn_inputs"]


def drawn_inputs(text: str, forward: Forward, held_out: Split | None, seed: int) -> tuple[Split, str]:
    """What `drawn:...` asks for, in the shape the model takes, and the sentence that says what it is.

    White noise enters the first layer; behind it the layers see what the model makes of it, which white noise in every
    layer (`--refit h2`) does not know.

    Args:
        text: `drawn`, or with numbers; the sentence spells them all, so that it can be repeated anywhere.
        forward: the model.
        held_out: a split whose length is taken where `text` says none; nothing else of it is looked at.
        seed: of the draw.

    Raises:
        UsageError: the text cannot be read, or gives tokens a mean.
    """
    from lastcli.evaluation.fitting import random_split

    asked = parse_drawn(text)
    if forward.tokens and (asked.mean, asked.std) != (0.0, 1.0):
        raise UsageError(
            f"--calibration {text}: the model reads tokens, which have no mean and no std; leave both out."
        )
    length, why = asked.length, ""
    if length is None and held_out is not None:
        length, why = int(held_out.x.shape[1 if forward.layout == "single" else 2]), ", as long as those of --data"
    if length is None:
        length, why = LENGTH, ", a length that nothing has named: say drawn:length=N where yours differ"
    split = random_split(forward, n=asked.n, length=length, seed=seed)
    steps = split.x.shape[1 if forward.layout == "single" else 2]
    spelled = f"{DRAWN}:n={asked.n},length={steps}"
    if forward.tokens:
        what = "tokens, each as likely as any other"
    else:
        spelled += f",mean={asked.mean:g},std={asked.std:g}"
        what = "Gaussian inputs, independent from step to step"
        x = np.asarray(split.x) * np.float32(asked.std) + np.float32(asked.mean)
        split = dataclasses.replace(split, x=x)
    sentence = f"Calibration: {spelled} with seed {seed}{why}: {what}; no data of the model is looked at."
    return dataclasses.replace(split, name=spelled), sentence
