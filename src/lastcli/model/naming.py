"""What trainers put around a model's names, taken away so that every family sees the names of its own code.

| put there by | looks like |
|---|---|
| `torch.compile`, data parallel, FSDP, Fabric, DeepSpeed | a part of its own anywhere: `_orig_mod`, `module`, ... |
| the module that holds the network | `model.`, `net.`, ... before every name, also behind `params/` |
| the same with a name of its own | `foo.` before every name, where only without it the model is known |
| averaging, once its copy is chosen | `ema_model.x` for `online_model.x`, `ema_params/x` for `params/x` |
| the trainer, beside the network | `criterion.weight`, `train_accuracy.tp`, `n_averaged`, `step` |

Only what families see changes: written tensors have the names of the file.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from lastcli.containers.base import TensorInfo

__all__ = ["Naming", "parts_of"]

_WRAPPERS = frozenset(
    {"module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module"}
)
_HOLDERS = frozenset({"model", "net", "network", "online_model", "ema_model", "model_ema", "ema"})
_COLLECTIONS = frozenset({"", "params", "batch_stats", "model_state", "cache", "prime", "variables"})
_BESIDE = re.compile(
    r"(criterion|loss(_\w+)?|\w+_loss|metrics?|(train|val|valid|validation|test)_(\w+_)?(metrics?|acc|accuracy|auroc|f1"
    r"|mse|mae|r2|loss))"
)
_COUNTERS = re.compile(r"step|global_step|epoch|n_averaged|initted|num_updates|decay")


def parts_of(name: str) -> tuple[str, ...]:
    """The parts of a name without wrappers; the leaf is never one."""
    *path, leaf = (part for part in re.split(r"[/.]", name) if part)
    return (*(part for part in path if part not in _WRAPPERS), leaf)


@dataclass(frozen=True)
class Naming:
    """From the names of a file to those that a family sees.

    Attributes:
        hidden: names that are not the model's, or are its second names.
        replaced: (path of the chosen copy, path that it stands in for), as parts.
        roots: holders to take away after the collection's name, one after the other.
        kept: names that stay as they are, because another would become the same.
        doubled: (beginning of the first names, of the second names) of modules with two.
        known: the names of the file that was opened; others are new ones of a file to be written.
    """

    hidden: frozenset[str] = frozenset()
    replaced: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()
    roots: tuple[str, ...] = ()
    kept: frozenset[str] = frozenset()
    doubled: tuple[tuple[str, str], ...] = ()
    known: frozenset[str] = frozenset()
    # names are asked for again and again, by every family and for every layer
    _plain: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        tensors: Mapping[str, TensorInfo],
        hidden: Collection[str] = (),
        replaced: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (),
        chosen: Collection[str] = (),
    ) -> Naming:
        """The naming of a file, all but `hidden` being the chosen model's.

        Args:
            chosen: parts of the path by which the model was chosen, holders like any other.
        """
        beside = {name for name, info in tensors.items() if _is_beside(name, info)}
        naming = cls(frozenset(hidden) | beside, replaced)
        own = [name for name in tensors if naming.sees(name)]
        naming = dataclasses.replace(
            naming, roots=_roots(map(naming.plain, own), _HOLDERS.union(chosen) - _COLLECTIONS)
        )
        seen = Counter(map(naming.plain, own))
        twice = frozenset(name for name in own if seen[naming.plain(name)] > 1)
        return dataclasses.replace(naming, kept=twice)

    def deeper(self, tensors: Mapping[str, TensorInfo]) -> Iterator[Naming]:
        """This naming with one, two, ... more parts taken away that all names begin with, whatever they are called."""
        own = [name for name in tensors if self.sees(name)]
        shallow = dataclasses.replace(self, kept=frozenset())
        common = _roots(map(shallow.plain, own), None)
        for count in range(1, len(common) + 1):
            naming = dataclasses.replace(shallow, roots=(*self.roots, *common[:count]))
            seen = Counter(map(naming.plain, own))
            yield dataclasses.replace(naming, kept=frozenset(name for name in own if seen[naming.plain(name)] > 1))

    def sees(self, name: str) -> bool:
        """Whether families see a tensor."""
        return name not in self.hidden

    def plain(self, name: str) -> str:
        """A name, or the path of a layer, as families see it."""
        if name not in self._plain:
            self._plain[name] = name if name in self.kept else self._seen_as(name)
        return self._plain[name]

    def _seen_as(self, name: str) -> str:
        tokens = _tokens(name)
        tokens = [token for token in tokens[:-1] if token[0] not in _WRAPPERS] + tokens[-1:]
        tokens = self._stood_in(tokens)
        for root in self.roots:
            at = next((i for i, (part, _) in enumerate(tokens) if part not in _COLLECTIONS), len(tokens))
            if at < len(tokens) and tokens[at][0] == root:
                del tokens[at]
        return "".join(part + separator for part, separator in tokens)

    def view(self, tensors: Mapping[str, TensorInfo]) -> tuple[dict[str, TensorInfo], dict[str, str]]:
        """The tensors that families see, by the names they see, and for each of these names the file's."""
        files = {
            self.plain(name): name for name in tensors if self.sees(name) and not self._is_new_second(name, tensors)
        }
        return {name: dataclasses.replace(tensors[file], name=name) for name, file in files.items()}, files

    def _is_new_second(self, name: str, tensors: Mapping[str, TensorInfo]) -> bool:
        return name not in self.known and any(
            name.startswith(other) and root + name[len(other) :] in tensors for root, other in self.doubled
        )

    def _stood_in(self, tokens: list[tuple[str, str]]) -> list[tuple[str, str]]:
        parts = tuple(part for part, _ in tokens)
        for path, other in self.replaced:
            if parts[: len(path)] == path:
                separator = tokens[len(path) - 1][1]
                return [(part, separator) for part in other] + tokens[len(path) :]
        return tokens


def _tokens(name: str) -> list[tuple[str, str]]:
    """(part, the separator behind it) of a name; the last has none."""
    return [*re.findall(r"([^/.]*)([/.])", name), (re.split(r"[/.]", name)[-1], "")]


def _roots(names: Iterable[str], holders: Collection[str] | None) -> tuple[str, ...]:
    """The holders (None: whatever there is) that all names begin with, after their collections."""
    paths = [[part for part, _ in _tokens(name)] for name in names]
    paths = [path[next((i for i, part in enumerate(path) if part not in _COLLECTIONS), 0) :] for path in paths]
    roots: list[str] = []
    while paths and all(len(path) > 1 for path in paths):
        first = {path[0] for path in paths}
        if len(first) != 1 or (holders is not None and not first.issubset(holders)):
            break
        roots += first
        paths = [path[1:] for path in paths]
    return tuple(roots)


def _is_beside(name: str, info: TensorInfo) -> bool:
    """Whether a tensor belongs to a loss, a metric or a counter of the trainer."""
    *path, leaf = parts_of(name)
    path = [part for part in path if part not in _COLLECTIONS]
    if not path:
        return info.size == 1 and _COUNTERS.fullmatch(leaf) is not None
    return _BESIDE.fullmatch(path[0]) is not None
