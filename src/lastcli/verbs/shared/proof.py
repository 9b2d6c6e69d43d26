"""Is a layer of PRUNED what it claims to be? Its tensors against ORIGINAL's, byte for byte where that can be.

Three ways, the strongest that applies, and the report says which:

- proved: the bytes of PRUNED are those of ORIGINAL with states removed. Poles and input maps of kept states always are,
  in families that store their states one by one; so is the read-out where nothing was refitted.
- recomputed: what was computed from ORIGINAL alone (the H2-optimal read-out, balanced states, a layer in another
  family's form) or from calibration inputs that the user gives again is computed anew and agrees to rounding.
- trusted: what was fitted to inputs that are not at hand is compared with the sha256 that the file itself carries of
  every tensor: the bytes are those that were written, and only the record says how they came about.

Whatever is none of these is not ORIGINAL with states removed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lastcli.engine.engines import engine_of, first_states
from lastcli.engine.protocol import Reduction, System
from lastcli.engine.system import diagonal
from lastcli.errors import LastError
from lastcli.model.checkpoint import Checkpoint
from lastcli.plan import METHODS, REFITS
from lastcli.verbs.shared.matching import Claim
from lastcli.verbs.shared.rebuilding import Rebuilt, as_checkpoint, changed_sources, in_memory, rebuild
from lastcli.verbs.shared.record import Record

__all__ = ["PROVED", "RECOMPUTED", "TRUSTED", "LayerProof", "Prover", "plain_name"]

PROVED, RECOMPUTED, TRUSTED = "proved", "recomputed", "trusted"

# Two computations of one reduction agree to this part of the layer, and what both are stored in rounds no worse.
_AGREE = 1e-4
# Values computed from the same bytes in another order of an array differ by no more.
_SAME = 1e-12
_ROUNDING = {"bfloat16": 2.0**-6, "float16": 2.0**-9}

_UNKNOWN = "its read-out is not ORIGINAL's, nor the H2-optimal one, and no record says what was done"
_UNHASHED = (
    "what was fitted to calibration inputs cannot be computed anew without them, and the file carries no sha256 of its "
    "tensors; give the inputs with --calibration or --layer-inputs, or prune again"
)

_FIXED = "its poles are said to be new, and the format holds only those that were there"

Tensors = Mapping[str, np.ndarray | None]


@dataclass(frozen=True)
class LayerProof:
    """What was found about one layer.

    Attributes:
        ok: whether it is what it claims to be.
        poles: how that is known of poles and input maps: proved, recomputed or trusted.
        readout: the same of C (and D).
        changed: what the layer turned out to have changed, as `Reduction.changed`.
        reduction: the layer as a reduction of ORIGINAL's: ORIGINAL's own values where the bytes are ORIGINAL's, else
            the values of the file.
        detail: why not, where `ok` is False.
    """

    ok: bool
    poles: str
    readout: str
    changed: str
    reduction: Reduction
    detail: str = ""


def plain_name(name: str) -> str:
    """A tensor's name without what a container adds: a flat and a nested one join the same path differently."""
    return name.replace("/", ".").removeprefix("params.")


class Prover:
    """The proofs of all layers of one pair of files.

    Args:
        before, after: ORIGINAL and PRUNED.
        steps: the prunings between them, the newest first; empty where PRUNED says nothing.
        again: the reductions of all layers computed anew from ORIGINAL and calibration inputs, or None without them.
    """

    def __init__(
        self,
        before: Checkpoint,
        after: Checkpoint,
        steps: Sequence[Record],
        again: Callable[[], Sequence[Reduction]] | None = None,
    ):
        self.before, self.after, self.steps, self.again = before, after, steps, again
        self._names = {plain_name(name): name for name in after.reader.tensors}

    @cached_property
    def _recalibrated(self) -> Sequence[Reduction] | None:
        return None if self.again is None else self.again()

    def prove(self, index: int, claim: Claim) -> LayerProof:
        """The proof of layer `index`; `claim` must not be wrong already."""
        old, new = self.before.systems[index], self.after.systems[index]
        active = first_states(new, claim.states)
        plain = engine_of(old).truncate(old, claim.kept)
        found = self._by_bytes(index, claim, plain, active)
        return found if found is not None else self._by_systems(index, claim, plain, active)

    def _by_bytes(self, index: int, claim: Claim, plain: Reduction, active: System) -> LayerProof | None:
        """A proof over the tensors; None in families whose tensors are computed anew whatever is removed."""
        if not self._gathers(index):
            return None
        engine = engine_of(active)
        wanted = {**self._own(index), **self._tensors(index, plain)}
        odd = self._differing(wanted)
        if not odd:
            return LayerProof(True, PROVED, PROVED, "none", plain)
        if claim.changed != "all" and odd <= self._readout_names(index, plain, wanted):
            # a tensor may hold what is read beside what drives: of that nothing may differ
            if not engine.same_dynamics(plain.system, active, _SAME):
                detail = "what drives its states is not ORIGINAL's"
                return LayerProof(False, "", "", "all", Reduction(claim.kept, active, "all"), detail)
            reduction = Reduction(claim.kept, engine.with_dynamics(active, plain.system), "readout")
            if claim.changed == "none":
                return LayerProof(False, PROVED, "", "readout", reduction, f"{min(odd)} is not ORIGINAL's")
            return self._readout(index, claim, reduction, PROVED)
        if claim.changed == "all":
            return self._by_systems(index, claim, plain, active)
        detail = f"{min(odd - self._readout_names(index, plain, wanted))} is not ORIGINAL's with states removed"
        return LayerProof(False, "", "", "all", Reduction(claim.kept, active, "all"), detail)

    def _by_systems(self, index: int, claim: Claim, plain: Reduction, active: System) -> LayerProof:
        """A proof over poles, B, C and D as they are read from the two files."""
        as_found = Reduction(claim.kept, active, claim.changed or "readout")
        if claim.changed == "all":
            if getattr(self.before.systems[index], "fixed_poles", False):
                return LayerProof(False, "", "", "all", as_found, _FIXED)
            expected = self._moved(index, claim)
            if expected is not None:
                return self._agreeing(index, as_found, expected)
            return self._unless_hashed(index, as_found, "")
        stored = self._stored(index, plain)
        if not engine_of(active).same_dynamics(stored, active, self._rounding(index)):
            detail = "its poles or input maps are not ORIGINAL's"
            return LayerProof(False, "", "", "all", Reduction(claim.kept, active, "all"), detail)
        proof = self._agreeing(index, Reduction(claim.kept, active, "none"), plain)
        if proof.ok or claim.changed == "none":
            return proof
        return self._readout(index, claim, Reduction(claim.kept, active, "readout"), RECOMPUTED)

    def _readout(self, index: int, claim: Claim, found: Reduction, poles: str) -> LayerProof:
        """A layer whose poles and input maps are ORIGINAL's: where does its read-out come from?"""
        expected = self._refitted(index, claim)
        if expected is None:
            return self._unless_hashed(index, found, poles)
        proof = self._agreeing(index, found, expected)
        detail = proof.detail if proof.ok or self.steps else _UNKNOWN
        return LayerProof(proof.ok, poles, proof.readout, "readout", found, detail)

    def _agreeing(self, index: int, found: Reduction, expected: Reduction) -> LayerProof:
        """Whether the layer is the expected one, each as it is stored."""
        try:
            stored = self._stored(index, expected)
        except LastError as error:
            return LayerProof(False, "", "", found.changed, found, f"what is computed anew cannot be stored: {error}")
        apart = engine_of(stored).distance(stored, found.system)
        limit = max(_AGREE, self._rounding(index))
        if apart <= limit and np.array_equal(found.kept, expected.kept):
            return LayerProof(True, RECOMPUTED, RECOMPUTED, found.changed, found)
        if apart <= limit:
            return LayerProof(False, "", "", found.changed, found, "other states stay than are kept when computed anew")
        measure = "relative H2" if stored.time_invariant else "relative"
        detail = f"it is {apart:.2g} ({measure}) from what is computed anew"
        return LayerProof(False, "", "", found.changed, found, detail)

    def _unless_hashed(self, index: int, found: Reduction, poles: str) -> LayerProof:
        names = self.after.layers[index].tensors.values()
        digests = self.after.reader.digests
        if digests and all(name in digests for name in names if name in self.after.reader.tensors):
            return LayerProof(True, poles or TRUSTED, TRUSTED, found.changed, found)
        return LayerProof(False, poles, "", found.changed, found, _UNHASHED if self.steps else _UNKNOWN)

    def _refitted(self, index: int, claim: Claim) -> Reduction | None:
        """The layer with its read-out refitted anew, where ORIGINAL alone (or the calibration inputs) decide it."""
        if self._recalibrated is not None:
            return self._recalibrated[index]
        if len(self.steps) > 1 or (self.steps and not _on_white_noise(self.steps[0])):
            return None
        if not self.before.systems[index].time_invariant:
            return None
        from lastcli.engine.reductions import refit
        from lastcli.engine.white_noise import white_noise_moments

        system = diagonal(self.before.systems[index])
        return refit(system, claim.kept, white_noise_moments(system, allow_unstable=True))

    def _moved(self, index: int, claim: Claim) -> Reduction | None:
        """The layer with poles of its own computed anew."""
        if self._recalibrated is not None:
            return self._recalibrated[index]
        step = self.steps[0] if len(self.steps) == 1 else None
        method = METHODS.get(step.method) if step is not None else None
        if step is None or method is None or not method.moves_poles or step.options.get("match_output"):
            return None
        if step.refit not in REFITS or REFITS[step.refit].needs_calibration:
            return None
        from lastcli.engine.balanced import balance
        from lastcli.engine.reductions import refit_moved

        layer, system = self.before.layers[index], diagonal(self.before.systems[index])
        mode = "perturbation" if method.settles else "truncation"
        try:
            reduction = balance(system, layer.name, mode).reduce(claim.states)
        except LastError:
            return None
        return refit_moved(system, reduction) if _on_white_noise(step) else reduction

    def _tensors(self, index: int, reduction: Reduction) -> Tensors:
        """The layer's tensors as prune would write them, in the width that PRUNED has."""
        before = self.before
        layer, width = before.layers[index], self.after.layers[index].states
        return before.family.rebuild(layer, before.config, before.read, reduction, width)

    def _own(self, index: int) -> Tensors:
        """Every tensor of the layer in ORIGINAL: what a rebuild leaves alone must be there unchanged."""
        before = self.before
        names = before.layers[index].tensors.values()
        return {name: before.read(name) for name in names if name in before.reader.tensors}

    def _gathers(self, index: int) -> bool:
        """Whether the family's tensors hold their states one by one: with none removed they are the same bytes."""
        if self.after.family.name != self.before.family.name:
            return False
        layer, system = self.before.layers[index], self.before.systems[index]
        every = _whole(system)
        again = self.before.family.rebuild(layer, self.before.config, self.before.read, every, layer.states)
        tensors = self.before.reader.tensors
        return all(
            array is not None and name in tensors and _same_bytes(self.before.read(name), array)
            for name, array in again.items()
        )

    def _differing(self, wanted: Tensors) -> set[str]:
        """Names of the tensors that PRUNED does not hold with just these bytes."""
        odd = set()
        for name, array in wanted.items():
            there = self._names.get(plain_name(name))
            if not _same_or_absent(None if there is None else self.after.read(there), array):
                odd.add(name)
        return odd

    def _readout_names(self, index: int, plain: Reduction, wanted: Tensors) -> set[str]:
        """The tensors in which the family stores C and D: those that another read-out changes."""
        other = engine_of(plain.system).other_readout(plain.system)
        probe = self._tensors(index, Reduction(plain.kept, other, "readout"))
        return {name for name, array in probe.items() if not _same_or_absent(array, wanted.get(name))}

    def _stored(self, index: int, reduction: Reduction) -> System:
        """A reduction as it is read back from the dtypes of ORIGINAL's form; converted by other means, as it is."""
        before = self.before
        written = before.family.rebuilt_config(before.config).get("family", before.family.name)
        if self.after.family.name != written:
            return reduction.system
        if self._gathers(index):
            again = as_checkpoint(
                before, Rebuilt(changed_sources(before, in_memory(self._tensors(index, reduction))), ())
            )
        else:
            reductions = [*self._plain[:index], reduction, *self._plain[index + 1 :]]
            again = as_checkpoint(before, rebuild(before, reductions, "ragged"))
        system = again.family.system(again.layers[index], again.config, again.read)
        return first_states(system, int(reduction.kept.shape[1]))

    @cached_property
    def _plain(self) -> list[Reduction]:
        """Every layer with some states of its own, where a whole model has to be written to read one layer."""
        return [_whole(system) for system in self.before.systems]

    def _rounding(self, index: int) -> float:
        """What the coarsest dtype of the layer loses, relative."""
        layer, tensors = self.after.layers[index], self.after.reader.tensors
        dtypes = [tensors[name].dtype for name in layer.tensors.values() if name in tensors]
        return max((_ROUNDING.get(dtype, 2.0**-18) for dtype in dtypes), default=2.0**-18)


def _same_bytes(first: np.ndarray, second: np.ndarray) -> bool:
    return (first.shape, first.dtype) == (second.shape, second.dtype) and first.tobytes() == second.tobytes()


def _same_or_absent(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    return first is second if first is None or second is None else _same_bytes(first, second)


def _whole(system: System) -> Reduction:
    """The layer with all its states."""
    return engine_of(system).truncate(system, np.tile(np.arange(system.states), (system.sets, 1)))


def _on_white_noise(step: Record) -> bool:
    return step.refit in REFITS and REFITS[step.refit].moments == "h2"
