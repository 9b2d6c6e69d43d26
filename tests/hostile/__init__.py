"""Files that must not be believed: every builder writes one attack and returns its path.

A `Case` says what the attack is, how to make it, and what the error message must contain. The tables are grouped by
container, so that the tests of the containers and of the command line run over the same files. `TORCH` needs PyTorch
when it builds.
"""

from tests.hostile.case import Case
from tests.hostile.equinox import EQUINOX
from tests.hostile.msgpack import MSGPACK
from tests.hostile.orbax import ORBAX
from tests.hostile.pickle import PICKLE
from tests.hostile.places import PLACES
from tests.hostile.safetensors import SAFETENSORS, safetensors_bytes
from tests.hostile.sharded import SHARDED
from tests.hostile.torch import TORCH

__all__ = [
    "EQUINOX",
    "MSGPACK",
    "ORBAX",
    "PICKLE",
    "PLACES",
    "SAFETENSORS",
    "SHARDED",
    "TORCH",
    "Case",
    "safetensors_bytes",
]
