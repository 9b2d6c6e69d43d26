"""What every model family offers: its names, its options, its systems and its forward pass.

A family turns named tensors into one `System` a layer, turns a `Reduction` back into tensors in its own
names, shapes and dtypes, and (where its published architecture is known) computes the model's output. It never sees
a file. This module and the top level of every family file import neither JAX nor the engine, so that `last inspect`
starts fast: JAX is imported inside the functions that compute.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lastcli.containers.base import TensorInfo
from lastcli.errors import UnsupportedModelError, UsageError

if TYPE_CHECKING:
    from lastcli.engine.protocol import Reduction, System

__all__ = [
    "Config",
    "Decoding",
    "Family",
    "Forward",
    "Layer",
    "Match",
    "Option",
    "Read",
    "Tensors",
    "next_token",
    "task_option",
]

Tensors = Mapping[str, TensorInfo]
Read = Callable[[str], np.ndarray]
Config = Mapping[str, Any]


class Option(NamedTuple):
    """One key of a family's model description.

    Attributes:
        key: as written in a sidecar, recipe or `--set key=value`.
        kind: the type of the value: bool, int, float or str.
        default: what the upstream code does where nothing is said; shown to the user as assumed.
        choices: the allowed values, empty for any.
        help: one line for the documentation and error messages.
    """

    key: str
    kind: type
    default: Any
    help: str
    choices: tuple[Any, ...] = ()


TASKS = ("classification", "regression", "multilabel")


def task_option(default: str, *more: str, help: str = "what the outputs are") -> Option:
    """The option `task` of a family whose models may have any of them; `more` are the family's own."""
    return Option("task", str, default, help, (*TASKS, *more))


def next_token(config: Config) -> int | None:
    """`Forward.generates` of a model that looks ahead only where its description says so."""
    return None if config.get("bidirectional") else 1


@dataclass(frozen=True)
class Layer:
    """One state space layer of a checkpoint.

    Attributes:
        name: the path shared by its tensors, for example "encoder/layers_0/seq".
        states: stored states (of one index set) as the tensors' shapes say.
        sets: independent index sets: 1 for MIMO or tied poles, H for multi-SISO with own states.
        tensors: role ("Lambda_re", "B", ...) → tensor name, for every tensor of the layer a rebuild may change.
        infos: role → shape and dtype, where the family reads large tensors only when somebody computes with them.
    """

    name: str
    states: int
    sets: int
    tensors: Mapping[str, str]
    infos: Mapping[str, TensorInfo] = field(default_factory=dict, kw_only=True, compare=False)

    @property
    def stored_states(self) -> int:
        """States this layer counts with in the budget."""
        return self.states * self.sets


@dataclass(frozen=True)
class Match:
    """How well a family's names fit a checkpoint.

    Attributes:
        family: the family's name.
        layers: names of the complete layers found.
        missing: tensors that a partly recognised layer lacks, as full names.
        found: how many tensors of the checkpoint the family's patterns explain; the nearest family explains most.
    """

    family: str
    layers: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    found: int = 0

    @property
    def complete(self) -> bool:
        """Whether the family can take the checkpoint."""
        return bool(self.layers) and not self.missing


@dataclass(frozen=True)
class Decoding:
    """What the next step of one sequence costs a model that runs as a recurrence.

    Attributes:
        state_bytes: of the states and the windows of convolutions that a sequence carries, as float32.
        multiply_adds: of one step, the projections and the read-out of the outputs among them.
    """

    state_bytes: int
    multiply_adds: int


@dataclass(frozen=True)
class Forward:
    """A family's published architecture as a pure function.

    Attributes:
        apply: `apply(params, systems, x, lengths) -> (outputs, layer_inputs)`, traceable by `jax.jit`.
            params: {tensor name: array} of every tensor that carries no state.
            systems: one `System` a layer, of any state count, in the precision of the model; the poles, B, C
                and D used are these, never the tensors'. Masks, refits and reduced layers are all just other
                systems, so one compiled program serves every ratio and method.
            x: (n, L, F) float inputs, (n, L) integer tokens (one-hot inside), or what `layout` says.
            lengths: (n,) int true lengths of padded input, or None.
            outputs: (n, classes) logits, (n, p), or (n, L, p) for sequence to sequence.
            layer_inputs: the input u of every state space layer, (n, L, H) each; unused ones cost nothing under jit.
        features: F, the number of input features (the vocabulary size for tokens).
        outputs: size of the last output axis.
        task: "classification", "regression", or "multilabel": every output is the logit of a label of its own. One
            output of a classifier is the logit of class 1.
        sequence: whether the output has a time axis.
        params: names of the tensors `apply` needs.
        layout: "single", "pair" (x is (n, 2, L, ...): two documents to compare) or "series" (x is (n, S, L, F): S
            sequences, each passing through the layers by itself; a batch runs all first ones, then all second ones).
        output_step: with a time axis, how many steps apart the outputs are: output j is that of step
            (j + 1)·output_step - 1, so that L steps give L // output_step outputs.
        series: S.
        tokens: whether x is (n, L) whole numbers and nothing else; with `sequence` the next one is the label of a step
            that has no other.
        generates: of a model over tokens, how many steps after a step the token stands that its output there is about,
            where the data bring no labels: 1, or 0 for one that delays its input itself. None where outputs see the
            token they would be asked for, or are about something else.
        several: how many outputs a step, (n, L, several, classes); 1: (n, L, classes).
        step: `step(params, systems, cache, x) -> (outputs, cache)` of one step of n sequences, or None; x is one step
            of what `apply` takes, (n,) or (n, F), and the outputs (n, ...) are those of the present step, or of the
            sequence up to it. `start(systems, n)` gives the cache of sequences that begin. The systems of both are
            what `Engine.recurrent` makes of a layer.
        unsteppable: why there is no step, as a clause about the model ("its attention looks at all steps").
        input_step: how many steps are folded into one, so that sequences have a multiple of so many.
        precision: "float32" or "float64", what systems and parameters are given in. Whoever runs `apply` for a model in
            float64 enables JAX's 64-bit types around it (`evaluation.passes.precision_of`).
    """

    apply: Callable[..., tuple[Any, tuple[Any, ...]]]
    features: int
    outputs: int
    task: str = "classification"
    sequence: bool = False
    params: tuple[str, ...] = ()
    layout: str = "single"
    output_step: int = 1
    series: int = 1
    tokens: bool = False
    generates: int | None = None
    several: int = 1
    step: Callable[..., tuple[Any, Any]] | None = None
    start: Callable[..., Any] | None = None
    unsteppable: str = ""
    input_step: int = 1
    precision: str = "float32"


class Family(abc.ABC):
    """One model family. Instances are stateless; the registry in `lastcli.families` holds one of each."""

    name: str = ""
    title: str = ""
    help: str = ""  # one line: what its layers are
    source: str = ""  # where the layer is published: paper and code
    page: str = ""  # its documentation, from the root of the repository
    # How upstream's own module takes its input where the shape leaves a choice: axes of "blh" (sequences, steps,
    # features) in order; "" where nothing is known.
    input_layout: str = ""
    converts_to: tuple[str, ...] = ()
    # Whether systems come from eigenvectors, so that the terms of a kernel may be far larger than their sum.
    diagonalises: bool = False
    options: tuple[Option, ...] = ()
    # What the settings of upstream's training code call an option, where that is another word of the same meaning.
    spellings: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    # How the layers may differ in their state counts, the first where nothing is said.
    layouts: tuple[str, ...] = ("ragged", "padded", "uniform")
    # The method of a run that names none: without calibration inputs, and with some.
    default_methods: tuple[str, str] = ("last", "last")
    # Of selective layers: what ranking them by norms at their mean step cost where it was measured, as a sentence.
    frozen_figures: str = ""
    # Whether it is asked in the names of the file itself, whatever those of its code are.
    in_names_of_file: bool = False
    # Options that follow from the state counts, so that a reduced model has others.
    sized: frozenset[str] = frozenset()
    # Where a stored tensor carries its states: role → (axis of the index sets or None, axis of the states). Roles
    # that are not named carry no states. An axis may hold several blocks of N states one after the other.
    axes: Mapping[str, tuple[int | None, int]] = MappingProxyType({})

    @abc.abstractmethod
    def match(self, tensors: Tensors) -> Match:
        """How well the tensor names and shapes fit this family (names, shapes and dtypes only)."""

    @abc.abstractmethod
    def infer(self, tensors: Tensors) -> dict[str, Any]:
        """Option values that the tensors prove (a `C2` proves `bidirectional`); no guesses."""

    def settled(self, tensors: Tensors, config: Config) -> dict[str, tuple[Any, str]]:
        """What "auto" stands for in this checkpoint: {key: (value, source)} of options that have such a value.

        The source is "tensors" where names or shapes show it, "assumed" where it is only what the published code does.
        An option whose "auto" says nothing here (that of a model which is not known) is left out.
        """
        return {}

    def idle(self, tensors: Tensors) -> frozenset[str]:
        """Keys of options that say nothing about this checkpoint, such as those of a model that it is not."""
        return frozenset()

    @abc.abstractmethod
    def layers(self, tensors: Tensors, config: Config) -> tuple[Layer, ...]:
        """The state space layers in the order the model runs them.

        Raises:
            UnsupportedModelError: shapes contradict each other or the configuration; says which tensor and how.
        """

    def refuses_moved_poles(self, layer: Layer, config: Config) -> str | None:
        """Why the format can only hold the poles and B that are there, as a sentence; None where it can hold others.

        What `system` says as `fixed_poles`, and what `rebuild` raises through `check_moved_poles`. A format that
        holds others, but not all, says so in `rebuild` once it sees them.
        """
        return None

    def check_moved_poles(self, layer: Layer, config: Config, reduction: Reduction) -> None:
        """Refuse a reduction with new poles where the format cannot hold any.

        Raises:
            UnsupportedModelError: the sentence of `refuses_moved_poles`.
        """
        why = self.refuses_moved_poles(layer, config) if reduction.changed == "all" else None
        if why is not None:
            raise UnsupportedModelError(why)

    @abc.abstractmethod
    def system(self, layer: Layer, config: Config, read: Read) -> System:
        """The layer in discrete time, NumPy float64 / complex128."""

    @abc.abstractmethod
    def rebuild(
        self, layer: Layer, config: Config, read: Read, reduction: Reduction, size: int
    ) -> dict[str, np.ndarray | None]:
        """The layer's tensors for a reduced system, in the family's own names, shapes and dtypes.

        Args:
            size: stored states to write, at least the number kept; the rest are inert (B = C = 0, a stable pole).

        Returns:
            {tensor name: new array}, for every tensor that changes; None where the tensor must go. With
            `reduction.changed == "none"` every value is a plain gather of the original bytes; with "readout" only C
            (and D) is computed; with "all" the poles, B, C and D are written from `reduction.system`.
        """

    def inexact(self, layer: Layer, config: Config) -> str | None:
        """Why leaving states out changes those that stay, as a sentence; None where it does not."""
        return None

    def upstream(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Options that the configuration file of another program (`config.json`) settles: {key: value}."""
        return {}

    def for_sizes(self, config: Config, sizes: Sequence[int]) -> dict[str, Any]:
        """The description of a model whose layers have these state counts."""
        return dict(config)

    def size_note(self, sizes: Sequence[int]) -> str | None:
        """A sentence about programs that run such state counts slower, or not at all; None where there are none."""
        return None

    def decoding(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Decoding | None:
        """What a step of one sequence costs; None where that is not how the models are run."""
        return None

    def inside(self, layer: Layer, tensors: Tensors) -> dict[str, int]:
        """Sizes inside a layer that only this kind has, by the field's own names (d_inner, dt_rank), for `inspect`."""
        return {}

    def magnitudes(self, layer: Layer, config: Config, read: Read) -> np.ndarray:
        """Sum of squares of all stored parameters of every state, (sets, N) float64: the `magnitude` criterion.

        Parameters as they are stored (continuous-time poles, logarithms of steps), as the paper's baseline takes them.

        Raises:
            UnsupportedModelError: the family does not say where its tensors carry the states.
        """
        if not self.axes:
            raise UnsupportedModelError(
                f"{layer.name}: the family {self.name} has no parameter magnitudes; choose another criterion, "
                "for example --method last."
            )
        total = np.zeros((layer.sets, layer.states))
        for role, name in layer.tensors.items():
            if role in self.axes:
                values = np.asarray(read(name))
                wide = np.complex128 if np.iscomplexobj(values) else np.float64
                total += _squares_by_state(np.abs(values.astype(wide)) ** 2, *self.axes[role], layer.states)
        return total

    def rebuilt_config(self, config: Config) -> dict[str, Any]:
        """The description of a rebuilt checkpoint; differs from `config` only where `rebuild` changes the form."""
        return dict(config)

    def read_config(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """What a `config.json` of another library says, as options; only where `families.MODEL_TYPES` names one."""
        return {}

    def written_config(self, document: Mapping[str, Any], states: Sequence[int]) -> dict[str, Any]:
        """That `config.json` for a model with so many stored states in each layer."""
        return dict(document)

    def described(self, tensors: Collection[str]) -> dict[str, Any]:
        """What the description of a file with these tensors says beside the family and its options (a map)."""
        return {}

    def convert(
        self, tensors: Tensors, config: Config, read: Read, target: str
    ) -> tuple[dict[str, np.ndarray | None], dict[str, Any]]:
        """The whole model in another family's form, with the same response.

        Returns:
            {tensor name: new array, or None where the tensor goes} and the description of the new model. Tensors that
            are not named stay as they are.

        Raises:
            UsageError: this family has no exact conversion to `target`.
        """
        if self.converts_to:
            raise UsageError(f"A {self.name} model converts to {', '.join(self.converts_to)}, not to {target!r}.")
        raise UsageError(f"A {self.name} model has no exact conversion to {target!r}, nor to any other family.")

    def forward(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> Forward | None:
        """The published architecture, or None where it is not known (then sweeps need `--forward`)."""
        return None

    def lacks(self, tensors: Tensors, config: Config, layers: Sequence[Layer]) -> str | None:
        """What keeps a known architecture from a `forward`, and what to do about it, as a clause; or None."""
        return None


def _squares_by_state(squares: np.ndarray, set_axis: int | None, state_axis: int, states: int) -> np.ndarray:
    """(sets or 1, N): `squares` summed over everything but the set and the state."""
    if set_axis is None:
        squares, set_axis, state_axis = squares[None], 0, state_axis + 1
    squares = np.moveaxis(squares, (set_axis, state_axis), (0, -1))
    return squares.reshape(squares.shape[0], -1, states).sum(axis=1)
