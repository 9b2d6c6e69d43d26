"""`verify`: proof that PRUNED is ORIGINAL with states removed (and refitted), and what of that could not be proved.

What must be ORIGINAL's is compared byte for byte, what can be computed anew is, and what was fitted to inputs that are
not at hand is compared with the hashes that the file carries; every check says which of the three it was. Certificates
are those of the file as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from lastcli.containers.base import TensorInfo
from lastcli.engine.engines import engine_of
from lastcli.engine.protocol import Reduction
from lastcli.errors import InputError
from lastcli.model.checkpoint import Checkpoint
from lastcli.plan import METHODS, REFITS
from lastcli.results import Check, LayerCertificate, VerifyResult
from lastcli.verbs.shared.certificates import certificates
from lastcli.verbs.shared.matching import Claim, match_layers
from lastcli.verbs.shared.outputs import Compared, compare_outputs
from lastcli.verbs.shared.proof import PROVED, RECOMPUTED, TRUSTED, LayerProof, Prover, plain_name
from lastcli.verbs.shared.record import Record, chain
from lastcli.verbs.shared.selection import check_selection, plan_of
from lastcli.verbs.shared.session import Session

__all__ = ["verify"]

Named = str | Path | Checkpoint


def verify(session: Session, original: Named, pruned: Named) -> VerifyResult:
    """Compare two checkpoints; every check is reported, none stops the others.

    Inputs are the plan's data where given, else random.

    Raises:
        InputError: a file cannot be read.
        UnsupportedModelError: a family is not known.
    """
    before, after = session.open_pair(original, pruned, keep_others=True)
    record, steps = _record(before, after)
    checks = [record, _description(before, after), _untouched(before, after)]
    finite = _finite(after)
    checks.append(finite)
    if not finite.ok or len(before.layers) != len(after.layers):
        checks.append(_layer_counts(before, after))
        return _result(before.label, after.label, checks)
    checks.append(_stable(before, after))
    claims = match_layers(before, after, steps)
    checks.append(_shapes(before, after, claims, steps))
    if steps:
        checks.append(_agreement(before, steps))
    proofs = _proofs(session, before, after, claims, steps)
    checks += _layer_checks(before, claims, proofs)
    if len(steps) == 1:
        selection = check_selection(before, steps[0], claims)
        checks += [selection] if selection is not None else []
    if any(claim.wrong for claim in claims):
        return _result(before.label, after.label, checks)
    reductions = [proof.reduction for proof in proofs if proof is not None]
    names = [layer.name for layer in before.layers]
    if not _alike(before, after):
        detail = "not compared: the tensors around the layers are not ORIGINAL's in name and shape"
        checks.append(Check(name="equal outputs", ok=False, detail=detail))
        found = certificates(names, before.systems, reductions)
        return _result(before.label, after.label, checks, None, found)
    compared = compare_outputs(session, before, after, reductions)
    checks.append(compared.check())
    found = certificates(names, before.systems, reductions, session.examples.data_errors(before, reductions))
    return _result(before.label, after.label, checks, compared, found)


def _result(
    original: str,
    pruned: str,
    checks: Sequence[Check],
    compared: Compared | None = None,
    layers: tuple[LayerCertificate, ...] = (),
) -> VerifyResult:
    known = compared is not None and compared.finite
    return VerifyResult(
        original=original,
        pruned=pruned,
        ok=all(check.ok for check in checks),
        max_abs_difference=compared.difference if compared is not None and known else None,
        max_output_difference=compared.lost_most if compared is not None and known else None,
        mean_output_difference=compared.lost_on_average if compared is not None and known else None,
        checks=tuple(checks),
        layers=layers,
    )


def _record(before: Checkpoint, after: Checkpoint) -> tuple[Check, tuple[Record, ...]]:
    """Whether PRUNED says that it comes from ORIGINAL, and the prunings on the way, the newest first."""
    try:
        steps = chain(after)
    except InputError as error:
        return Check(name="record", ok=False, detail=str(error)), ()
    if not steps:
        detail = "PRUNED carries no record; its kept states are found by their poles"
        return Check(name="record", ok=True, detail=detail), ()
    for count, step in enumerate(steps, start=1):
        if step.sha256 is not None and before.hashing.is_of(step.sha256):
            times = "" if count == 1 else f", in {count} prunings"
            detail = f"PRUNED was made from ORIGINAL (sha256){times}"
            return Check(name="record", ok=True, detail=detail, how=PROVED), steps[:count]
    detail = "PRUNED was made from another file (sha256 differs)"
    return Check(name="record", ok=False, detail=detail), steps[:1]


def _description(before: Checkpoint, after: Checkpoint) -> Check:
    """Both files are read as the same model: family, and every option that says something about either."""
    said = before.family.rebuilt_config(before.config)
    family = said.pop("family", before.family.name)
    if after.family.name not in {family, before.family.name, *before.family.converts_to}:
        detail = f"PRUNED is of the family {after.family.name}, ORIGINAL of {before.family.name}"
        return Check(name="description", ok=False, detail=detail)
    if after.family.name != family:
        return Check(name="description", ok=True, detail=f"{before.family.name} written as {after.family.name}")
    idle = {key for model in (before, after) for key, setting in model.settings.items() if setting.source == "idle"}
    alike = [key for key in said if key in after.config and key not in idle | before.family.sized]
    odd = [key for key in alike if said[key] != after.config[key]]
    if odd:
        shown = "; ".join(f"{key} is {said[key]!r} of ORIGINAL, {after.config[key]!r} of PRUNED" for key in odd)
        return Check(name="description", ok=False, detail=f"{shown}; say it with --set, or describe the right one")
    return Check(name="description", ok=True, detail=f"{after.family.name}, {len(said)} options alike", how=PROVED)


def _outside(before: Checkpoint, after: Checkpoint) -> tuple[dict[str, TensorInfo], dict[str, TensorInfo]]:
    """The tensors of both that are of no layer; of other models only those that are in PRUNED too."""
    skip = before.state_tensors | after.state_tensors
    for tensors in before.view.others.values():
        skip |= tensors if tensors.isdisjoint(after.reader.tensors) else set()
    first = {name: info for name, info in before.reader.tensors.items() if name not in skip}
    return first, {name: info for name, info in after.reader.tensors.items() if name not in skip}


def _alike(before: Checkpoint, after: Checkpoint) -> bool:
    """Whether a forward pass finds in PRUNED what it finds in ORIGINAL, whatever the values are."""
    first, second = _outside(before, after)
    shapes = {plain_name(name): info.shape for name, info in second.items()}
    return all(shapes.get(plain_name(name)) == info.shape for name, info in first.items())


def _untouched(before: Checkpoint, after: Checkpoint) -> Check:
    """Every tensor outside the layers has the same bytes, dtype and shape."""
    first, second = _outside(before, after)
    names = {plain_name(name): name for name in second}
    for name, info in first.items():
        other = names.pop(plain_name(name), None)
        if other is None:
            return Check(name="untouched", ok=False, detail=f"{name} is missing in PRUNED")
        there = second[other]
        if (info.shape, info.dtype) != (there.shape, there.dtype):
            detail = f"{name}: {info.dtype}{info.shape} became {there.dtype}{there.shape}"
            return Check(name="untouched", ok=False, detail=detail)
        try:
            same = before.reader.read(name).tobytes() == after.reader.read(other).tobytes()
        except InputError as error:
            return Check(name="untouched", ok=False, detail=str(error))
        if not same:
            return Check(name="untouched", ok=False, detail=f"{name}: the bytes differ")
    if names:
        return Check(name="untouched", ok=False, detail=f"{next(iter(names.values()))} is not in ORIGINAL")
    return Check(name="untouched", ok=True, detail=f"{len(first)} tensors, byte for byte", how=PROVED)


def _finite(after: Checkpoint) -> Check:
    try:
        systems = after.systems
    except InputError as error:
        return Check(name="finite", ok=False, detail=str(error))
    return Check(name="finite", ok=True, detail=f"{len(systems)} layers", how=PROVED)


def _layer_counts(before: Checkpoint, after: Checkpoint) -> Check:
    same = len(before.layers) == len(after.layers)
    return Check(name="layers", ok=same, detail=f"{len(before.layers)} in ORIGINAL, {len(after.layers)} in PRUNED")


def _stable(before: Checkpoint, after: Checkpoint) -> Check:
    """No pole of PRUNED is at or outside the unit circle, unless ORIGINAL had such poles already."""
    largest = [engine_of(system).largest_pole(system) for system in after.systems]
    worst = int(np.argmax(largest))
    limit = max(1.0, max(engine_of(system).largest_pole(system) for system in before.systems) * (1 + 1e-6))
    ok = largest[worst] < limit or limit > 1.0 >= largest[worst]
    detail = f"largest |λ| {largest[worst]:.6f} in {after.layers[worst].name}"
    return Check(name="stable", ok=ok, detail=detail, how=PROVED)


def _shapes(before: Checkpoint, after: Checkpoint, claims: Sequence[Claim], steps: Sequence[Record]) -> Check:
    layout = steps[0].layout if steps else None
    for layer, old, new in zip(before.layers, before.systems, after.systems):
        if new.states > old.states and layout != "padded":
            detail = f"{layer.name} has {new.states} states, more than {old.states}"
            return Check(name="shapes", ok=False, detail=detail)
    kept = sum(claim.states * old.sets for claim, old in zip(claims, before.systems))
    total = sum(system.stored_states for system in before.systems)
    recorded = kept if not steps or steps[0].states_after is None else steps[0].states_after
    detail = f"{total} states before, {kept} after" + ("" if recorded == kept else f", but the record says {recorded}")
    return Check(name="shapes", ok=recorded == kept, detail=detail, how=PROVED)


def _agreement(before: Checkpoint, steps: Sequence[Record]) -> Check:
    """Method, refit, ratio and what changed fit each other in every record."""
    states = sum(system.stored_states for system in before.systems)
    selective = not all(system.time_invariant for system in before.systems)
    for step in reversed(steps):
        wrong = _contradiction(step, states, selective)
        if wrong is not None:
            return Check(name="agreement", ok=False, detail=f"the record contradicts itself: {wrong}")
        states = step.states_after if step.states_after is not None else states
    step = steps[0]
    return Check(name="agreement", ok=True, detail=f"method {step.method}, refit {step.refit}", how=PROVED)


def _contradiction(step: Record, states: int, selective: bool) -> str | None:
    if step.states_before is not None and step.states_before != states:
        return f"{step.states_before} states are said to have been there before, and there were {states}"
    if step.states_after is not None and step.ratio is not None:
        # floors (a state in every layer) may keep more, whole ranks of channels and a common count fewer
        floor = sum(layer.kept.shape[0] for layer in step.layers) * max(1, int(step.options.get("min_states") or 0))
        most = max(states * (1 - step.ratio) + 1, floor)
        if step.states_after > most and step.compat is None:
            return f"ratio {step.ratio:g} of {states} states leaves at most {int(most)}, not {step.states_after}"
    method, refit = METHODS.get(step.method), REFITS.get(step.refit)
    if method is None or refit is None:
        return None  # a method or refit of the user's own
    changed = {layer.changed for layer in step.layers}
    may_match = refit.matches_output or step.options.get("match_output", refit.needs_calibration)
    # a selective layer may be fitted whole: what makes its B and C is no read-out
    if may_match or method.moves_poles or refit.moves_poles or (selective and refit.needs_calibration):
        return None
    allowed = {"none"} if refit.name == "none" else {"none", "readout"}
    if changed - allowed:
        return f"{method.name} with refit {refit.name} changes {_what(allowed)}, the layers say {_what(changed)}"
    return None


def _what(changed: set[str]) -> str:
    words = {"none": "nothing", "readout": "the read-out", "all": "poles, B and C"}
    return " or ".join(words[kind] for kind in sorted(changed))


def _proofs(
    session: Session, before: Checkpoint, after: Checkpoint, claims: Sequence[Claim], steps: Sequence[Record]
) -> list[LayerProof | None]:
    prover = Prover(before, after, steps, _again(session, before, steps))
    return [None if claim.wrong else prover.prove(index, claim) for index, claim in enumerate(claims)]


def _again(session: Session, before: Checkpoint, steps: Sequence[Record]) -> Callable[[], Sequence[Reduction]] | None:
    """What computes the reductions anew from the calibration inputs that the user gives, or None."""
    if (session.plan.calibration is None and session.plan.layer_inputs is None) or len(steps) != 1:
        return None
    step = steps[0]
    method, refit, states = METHODS.get(step.method), REFITS.get(step.refit), step.states_after
    if method is None or refit is None or states is None:
        return None
    return lambda: session.reduce_again(before, plan_of(step), (method, refit), states)


def _layer_checks(before: Checkpoint, claims: Sequence[Claim], proofs: Sequence[LayerProof | None]) -> list[Check]:
    """Two lines for all layers: poles and input maps, and the read-out; each known as well as the weakest layer."""
    for layer, claim, proof in zip(before.layers, claims, proofs):
        if proof is None:
            return [Check(name="kept states", ok=False, detail=f"{layer.name}: {claim.wrong}")]
        if not proof.ok and not proof.poles:
            return [Check(name="kept states", ok=False, detail=f"{layer.name}: {proof.detail}")]
    found = [proof for proof in proofs if proof is not None]
    moved = {proof.changed == "all" for proof in found}
    said = " or ".join(
        {False: "poles and B are ORIGINAL's", True: "poles, B and C are new"}[kind] for kind in sorted(moved)
    )
    checks = [Check(name="kept states", ok=True, detail=said, how=_weakest(proof.poles for proof in found))]
    for layer, proof in zip(before.layers, found):
        if not proof.ok:
            return [*checks, Check(name="read-out", ok=False, detail=f"{layer.name}: {proof.detail}")]
    changed = {proof.changed for proof in found}
    how = _weakest(proof.readout for proof in found)
    words = {
        PROVED: "C and D are ORIGINAL's",
        RECOMPUTED: "C and D are what is computed anew",
        TRUSTED: "C and D have the sha256 the file gives; how they were fitted is its word",
    }
    detail = words[how] if changed != {"none"} or how != RECOMPUTED else "C and D are ORIGINAL's, in another form"
    return [*checks, Check(name="read-out", ok=True, detail=detail, how=how)]


def _weakest(kinds: Iterable[str]) -> str:
    order = (PROVED, RECOMPUTED, TRUSTED)
    return order[max((order.index(kind) for kind in kinds if kind), default=0)]
