"""A file read from front to back through a small window, never beyond its end."""

from __future__ import annotations

from lastcli.containers.pickle.values import Access

__all__ = ["Stream"]

_WINDOW = 2**16


class Stream:
    """Part of a file as `pickletools` wants one: `read`, `readline`, and a position that is exact.

    Args:
        access: the bytes.
        start: where the part begins.
        end: where it ends; at the end of the file where None.
    """

    def __init__(self, access: Access, start: int = 0, end: int | None = None) -> None:
        self.access, self.position = access, start
        self.end = access.size if end is None else end
        self._window, self._at = b"", start

    @property
    def left(self) -> int:
        """Bytes to the end."""
        return self.end - self.position

    def read(self, count: int) -> bytes:
        """At most `count` bytes; fewer at the end."""
        count = max(min(count, self.left), 0)
        start = self.position - self._at
        if start + count > len(self._window):
            if count > _WINDOW:
                self.position += count
                return self.access.read(self.position - count, count, "its structure")
            self._at, start = self.position, 0
            self._window = self.access.read(self.position, min(_WINDOW, self.left), "its structure")
        self.position += count
        return self._window[start : start + count]

    def readline(self) -> bytes:
        """Up to the end of a line, or of the part."""
        pieces: list[bytes] = []
        while self.left:
            piece = self.read(min(_WINDOW // 16, self.left))
            line, end, rest = piece.partition(b"\n")
            pieces.append(line + end)
            if end:
                self.position -= len(rest)
                break
        return b"".join(pieces)

    def skip(self, count: int) -> int:
        """Pass over `count` bytes and return where they begin.

        Raises:
            ValueError: there are not so many.
        """
        if not 0 <= count <= self.left:
            raise ValueError(f"{count} bytes where {self.left} are left")
        self.position += count
        return self.position - count
