"""The settings of the training run that lie in a checkpoint (Lightning's `hyper_parameters`, `args`, a hydra `config`).

They were not written for `last`, and the same word may mean something else to another program. A value is taken only if
its key is an option of the family, or one of the family's `spellings` of it, it stands among the settings of a model,
it is a value that the option has, and no other place says otherwise. It then counts more than what would be assumed,
and less than everything said to `last`; what tensors prove it cannot change. All else is offered, never taken.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lastcli.containers.inputs import shown
from lastcli.families.base import Family, Option

__all__ = ["Understood", "understand"]

# Parts of a path, behind the first, below which the settings are a model's.
_OF_A_MODEL = frozenset(
    (
        "arch",
        "architecture",
        "backbone",
        "block",
        "blocks",
        "core",
        "decoder",
        "encoder",
        "kernel",
        "layer",
        "layers",
        "model",
        "model_args",
        "model_config",
        "model_kwargs",
        "model_params",
        "net",
        "network",
        "ssm",
        "ssm_cfg",
    )
)
# Words too common to be taken by name: an optimizer has an `eps` too.
_COMMON = frozenset(("delay", "eps", "form", "groups", "inner_eps", "lip", "norm_eps", "version"))
# What settings say of sizes and rules that the tensors show, or that other programs spell in their own ways.
_TELLING = frozenset(
    (
        "classes",
        "conj_sym",
        "d_model",
        "d_output",
        "d_state",
        "disc",
        "discretization",
        "dt_max",
        "dt_min",
        "expand",
        "l_max",
        "n_layers",
        "n_ssm",
        "num_classes",
        "num_layers",
        "ssm_size",
        "ssm_size_base",
        "state_size",
    )
)
_MANY = 8


@dataclass(frozen=True)
class Understood:
    """What the settings of a run say of the model.

    Attributes:
        values: option → (value, path among the settings).
        contradicted: sentences about values that the tensors, or other settings, contradict.
        offered: "path value" of what looks like a description and is not taken.
    """

    values: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    contradicted: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken, and what could not be, one sentence each."""
        taken = ", ".join(f"{key} {shown(value)} ({shown(path)})" for key, (value, path) in self.values.items())
        first = (f"Taken from the settings in the file: {taken}; --set says otherwise.",) if taken else ()
        return (*first, *self.contradicted)

    @property
    def offer(self) -> str | None:
        """What else they say, for whoever describes the model."""
        if not self.offered:
            return None
        more = len(self.offered) - _MANY
        rest = f" and {more} more" if more > 0 else ""
        listed = ", ".join(self.offered[:_MANY])
        return f"The settings in the file also say {listed}{rest}; nothing is taken from these."


def understand(
    family: Family, settings: Mapping[str, Any], said: Collection[str], proven: Mapping[str, Any]
) -> Understood:
    """What a family takes from the settings of a run.

    Args:
        settings: path → number or text.
        said: options that something stronger has said.
        proven: what the tensors prove.
    """
    options = {option.key: option for option in family.options}
    words = {spelling: key for key, spellings in family.spellings.items() for spelling in spellings}
    words |= {key: key for key in options if key not in _COMMON}
    found: dict[str, dict[str, Any]] = {}
    offered: list[str] = []
    for path, key, value in _of_the_model(settings):
        option = options.get(words.get(key, ""))
        if option is not None and _is_value(option, value):
            found.setdefault(option.key, {})[path] = value
        elif key in _TELLING or option is not None or _is_near(key, options):
            offered.append(f"{shown(path)} {shown(value)}")
    values: dict[str, tuple[Any, str]] = {}
    contradicted: list[str] = []
    for key, places in found.items():
        listed = " and ".join(f"{shown(value)} ({shown(path)})" for path, value in places.items())
        if key in said:
            continue
        if len({(type(value), value) for value in places.values()}) > 1:
            contradicted.append(f"The settings in the file say {key} {listed}; none of them is taken.")
        elif key not in proven:
            path, value = next(iter(places.items()))
            values[key] = options[key].kind(value), path
        elif next(iter(places.values())) != proven[key]:
            contradicted.append(
                f"The settings in the file say {key} {listed}, but the tensors show {shown(proven[key])}, which counts."
            )
    return Understood(values, tuple(contradicted), tuple(offered))


def _of_the_model(settings: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(path, its last part, value) of what stands among the settings of a model."""
    for path, value in settings.items():
        _, *between, key = path.split("/")
        if "/" in path and all(part.lower() in _OF_A_MODEL for part in between):
            yield path, key, value


def _is_value(option: Option, value: Any) -> bool:
    """Whether it is a value of the option as it stands: no text for a number, no number for a truth."""
    if option.kind is float and type(value) is int:
        return not option.choices or value in option.choices
    if option.kind is str and not option.choices:
        # text that could be anything, a reference to another setting too
        return False
    return type(value) is option.kind and (not option.choices or value in option.choices)


def _is_near(key: str, options: Mapping[str, Option]) -> bool:
    import difflib

    return bool(difflib.get_close_matches(key.lower(), [*options], n=1, cutoff=0.8))
