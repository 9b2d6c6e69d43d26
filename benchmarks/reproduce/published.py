"""The numbers the papers print, to stand beside the measured ones."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BASELINES", "CHOSEN", "HEADLINE", "IN_TRAINING", "Chosen", "InTraining"]


@dataclass(frozen=True)
class Chosen:
    """One task as AIRE-Prune (arXiv 2602.00534) reprints it: accuracies in percent at the ratio each method chose."""

    task: str
    length: int
    full: float
    last_ratio: int
    last: float
    aire_ratio: int
    aire: float


CHOSEN = (
    Chosen("ListOps", 2048, 61.48, 0, 61.48, 20, 61.48),
    Chosen("Text", 4096, 88.88, 60, 88.52, 80, 88.24),
    Chosen("Retrieval", 4000, 91.20, 50, 90.42, 50, 90.11),
    Chosen("Image", 1024, 87.30, 30, 86.34, 65, 87.30),
    Chosen("Pathfinder", 1024, 95.15, 30, 94.45, 80, 95.15),
    Chosen("Path-X", 16384, 98.41, 30, 97.95, 70, 98.41),
    Chosen("Speech", 16000, 96.43, 20, 96.31, 45, 96.40),
)

# LAST (arXiv 2411.02824), S5, mean over ten tasks: share of states removed (percent) and points lost.
HEADLINE = (33.0, 0.52)

# Points lost by other rankings at LAST's ratios, same paper and models.
BASELINES = {"last": 0.52, "uniform-hinf": 4.32, "global-hinf": 7.51}


@dataclass(frozen=True)
class InTraining:
    """A model that was made smaller while it was trained: states of its layers together, and accuracies in percent."""

    task: str
    full_states: int
    full: float
    states: int
    value: float

    @property
    def removed(self) -> float:
        """Share of the states, in percent."""
        return 100 * (1 - self.states / self.full_states)


# CompreSSM (arXiv 2510.02823, tables 2 and 3; rounded as its authors' repository gives them): balanced truncation of
# LRU models during training, which goes on afterwards; means over 10 and 5 seeds.
IN_TRAINING = (
    InTraining("sMNIST", 256, 97.3, 47, 96.9),
    InTraining("sMNIST", 256, 97.3, 28, 96.9),
    InTraining("sMNIST", 256, 97.3, 13, 95.9),
    InTraining("sCIFAR", 2304, 86.5, 161, 85.8),
    InTraining("sCIFAR", 2304, 86.5, 93, 85.7),
    InTraining("sCIFAR", 2304, 86.5, 57, 84.4),
)
