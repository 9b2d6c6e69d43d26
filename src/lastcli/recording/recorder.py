"""`Capture`: the inputs of every layer, taken in as the user's own code runs the model.

Of a layer's inputs only two things are kept: the second moments of its inputs, states and outputs (`engine.moments`),
which are all that elimination and the refit of the read-out ask for, and a bounded sample of sequences, for searches
that must look at signals again and again. Neither grows with the number of batches. The states are those of the
checkpoint's own layers, which is why a capture is of a checkpoint.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lastcli.engine.moments import Moments, accumulate, empty_moments
from lastcli.engine.system import DiagonalSystem, diagonal
from lastcli.errors import InputError, UsageError
from lastcli.mappings import suggestion
from lastcli.model.checkpoint import Checkpoint
from lastcli.recording.arrays import LAYOUTS, as_mask, as_sequences, layer_width
from lastcli.recording.names import plain
from lastcli.recording.sample import Sample

__all__ = ["Capture"]


class Capture:
    """A recording of one checkpoint's layers; use as a context manager, or call `save` when done.

    Args:
        checkpoint: the open checkpoint; nothing is read of it after construction.
        module: the torch model that runs, whose layers are hooked inside the `with` block; None to `record` by hand.
        out: where the file goes when the `with` block ends without an error.
        layout: order of the axes of every input, one of "blh", "bhl", "lbh" (b sequences, l steps, h features); told by
            the shape where None and it can be.
        sample: sequences of each layer kept for `--refit poles`, chosen evenly over all that come; 0 for none.
        seed: of that choice.

    Attributes:
        names: of the layers, as `last inspect` prints them.

    Raises:
        UsageError: the module is not the model that the checkpoint is of.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        module: Any = None,
        *,
        out: str | Path | None = None,
        layout: str | None = None,
        sample: int = 64,
        seed: int = 0,
    ) -> None:
        if layout is not None and layout not in LAYOUTS:
            raise UsageError(f"layout is {layout!r}; it must be one of {', '.join(LAYOUTS)}.")
        if sample < 0:
            raise UsageError(f"sample must be at least 0, not {sample}.")
        self.names = tuple(layer.name for layer in checkpoint.layers)
        self.systems: tuple[DiagonalSystem, ...] = tuple(map(diagonal, checkpoint.systems))
        self.moments: list[Moments] = [empty_moments(system) for system in self.systems]
        self.samples = [Sample(sample, seed) for _ in self.names]
        self.padded_backwards = False
        self.source = checkpoint.label
        self._index = {plain(name): i for i, name in enumerate(self.names)}
        self._layout = layout or checkpoint.family.input_layout or None
        self._fixed = layout is not None
        self._out = None if out is None else Path(out)
        self._batch: dict[str, Any] = {}
        self._stop: Callable[[], None] | None = None
        self._attach: Callable[[], Callable[[], None]] | None = None
        if module is not None:
            from lastcli.recording.hooks import hooked

            self._attach = hooked(module, checkpoint, self._record_hooked)

    def record(self, name: str, u: Any, *, lengths: Any = None, mask: Any = None, layout: str | None = None) -> None:
        """Take in one batch of a layer's inputs; any number of batches, of any lengths, in any order of the layers.

        Args:
            name: the layer, as `last inspect` prints it, in any container's spelling (`a/b`, `a.b`, without `params`).
            u: (n, L, H) or (L, H) real, or in the order of `layout`: what the layer itself is given, behind the norm
                and every projection that is not part of it. NumPy, JAX or torch.
            lengths: (n,) true lengths of padded sequences.
            mask: (n, L) true at steps that are no padding, instead of lengths.
            layout: see `Capture`, for this input.

        Raises:
            UsageError: no such layer, or an input of another shape than the layer takes.
            InputError: values that are not finite.
        """
        index = self._find(name)
        where, system = f"layer {self.names[index]}", self.systems[index]
        if layout is not None and layout not in LAYOUTS:
            raise UsageError(f"layout is {layout!r}; it must be one of {', '.join(LAYOUTS)}.")
        sequences = self._sequences(u, system, layout, where)
        kept = as_mask(sequences.shape[:2], lengths, mask, where)
        weights = np.ones(sequences.shape[:2], np.float32) if kept is None else kept.astype(np.float32)
        if kept is not None and not kept.all() and any(one.bidirectional for one in self.systems):
            # as in a calibration: what a backward scan meets in the padding reaches every true step
            self.padded_backwards, weights = True, np.ones_like(weights)
        try:
            self.moments[index] = accumulate(self.moments[index], system, sequences, weights)
        except InputError as error:
            raise InputError(f"{where}: its inputs hold NaN or infinity; check the model and its data.") from error
        self.samples[index].add(sequences, weights)

    def _sequences(self, u: Any, system: DiagonalSystem, layout: str | None, where: str) -> np.ndarray:
        width = layer_width(system)
        if layout is not None or self._fixed:
            return as_sequences(u, width, layout or self._layout, where)
        # the order of upstream's own module counts where the shape leaves a choice
        shape = tuple(getattr(u, "shape", ()))
        open_choice = len(shape) >= 2 and shape[-1] == width and (shape[-2] == width or self._layout == "lbh")
        return as_sequences(u, width, self._layout if open_choice else None, where)

    def _find(self, name: str) -> int:
        if plain(name) not in self._index:
            raise UsageError(
                f"The checkpoint has no layer {name!r}.{suggestion(name, self.names)} Its layers are "
                f"{', '.join(self.names[:6])}{', …' if len(self.names) > 6 else ''}."
            )
        return self._index[plain(name)]

    @contextlib.contextmanager
    def batch(self, *, lengths: Any = None, mask: Any = None) -> Iterator[None]:
        """While the model runs inside: which steps of the inputs that the hooks record are no padding."""
        self._batch = {"lengths": lengths, "mask": mask}
        try:
            yield
        finally:
            self._batch = {}

    def _record_hooked(self, name: str, u: Any) -> None:
        self.record(name, u, **self._batch)

    def sow(
        self, call: Callable[..., Any], arguments: tuple[Any, ...], keywords: Mapping[str, Any], context: Any
    ) -> Any:
        """For `flax.linen.intercept_methods`: every layer of the checkpoint sows what it is called with."""
        from lastcli.recording.intermediates import sow_input

        sow_input(self.has, arguments, context)
        return call(*arguments, **keywords)

    def record_intermediates(self, intermediates: Mapping[str, Any], *, lengths: Any = None, mask: Any = None) -> None:
        """Take in a collection of intermediates in which the layers sowed their inputs (`sow`, or the user's own).

        Raises:
            UsageError: it holds none of a layer, or more than one kind.
        """
        from lastcli.recording.intermediates import sown

        for name, u in sown(self.names, intermediates):
            self.record(name, u, lengths=lengths, mask=mask)

    def has(self, name: str) -> bool:
        """Whether the checkpoint has a layer of that name, in any container's spelling."""
        return plain(name) in self._index

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the file that `--layer-inputs` takes; a `.safetensors`, every tensor with its sha256.

        Raises:
            UsageError: a layer was never recorded.
            OutputError: it cannot be written there, or is there already (without `force`).
        """
        from lastcli.recording.file import Recorded, write_layer_inputs

        missing = [name for name, moments in zip(self.names, self.moments) if not moments.weight > 0]
        if missing:
            raise UsageError(
                f"Nothing was recorded of {', '.join(missing[:4])}{' and others' if len(missing) > 4 else ''}; run the "
                "model once at least, and record every layer of the checkpoint."
            )
        layers = [
            Recorded(name, system, moments, sample.arrays(), sample.seen)
            for name, system, moments, sample in zip(self.names, self.systems, self.moments, self.samples)
        ]
        write_layer_inputs(
            Path(path),
            layers,
            checkpoint=Path(self.source).name,
            padded_backwards=self.padded_backwards,
            force=force,
        )

    def __enter__(self) -> Capture:
        if self._attach is not None:
            self._stop = self._attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stop is not None:
            self._stop()
            self._stop = None
        if kind is None and self._out is not None:
            self.save(self._out)
