"""`.npz`: arrays `x`, `y`, `lengths` (or `mask`, `scale`, `mean`, `std`); a part `train` is `x_train`, `y_train`."""

from __future__ import annotations

from typing import Any

from lastcli.evaluation.readers.archive import Npz
from lastcli.evaluation.readers.base import Found, Reader, Request, check_shapes
from lastcli.evaluation.readers.named import NORMALISATION, ROWS, inputs_missing, own_name, require_named

__all__ = ["READER", "read"]


def read(request: Request) -> Found:
    """See `Reader.read`; only the rows asked for are kept."""
    with Npz(request.path) as archive:
        require_named(request, archive.keys)
        names = {role: request.array_name(role) for role in ROWS}
        if names["x"] not in archive:
            raise inputs_missing(request, archive.keys)
        headers = {role: archive.header(name) for role, name in names.items() if name in archive}
        check_shapes(request.where, {role: header.shape for role, header in headers.items()})
        start, stop = request.bounds(headers["x"].shape[0])
        found: dict[str, Any] = {role: archive.read(header, start, stop) for role, header in headers.items()}
        for role in NORMALISATION:
            name = own_name(request, role, archive.keys)
            if name is not None:
                found[role] = archive.read(archive.header(name))
    return Found(**found, taken=True)


READER = Reader("npz", read, suffixes=(".npz",), begins=(b"PK\x03\x04",), parts="x_train, y_train")
