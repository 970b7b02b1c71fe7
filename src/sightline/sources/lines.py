"""A text that comes in pieces, cut into whole lines: any line end, any Unicode encoding, no line too long."""

from __future__ import annotations

import codecs

from sightline.sources.files import LINE_BYTES, encoding_of


class LineSplitter:
    """Cuts a growing text into lines; keeps no more than one unfinished line.

    Parameters
    ----------
    limit : int
        Longest line in bytes of UTF-8; longer ones are skipped and counted in ``skipped``.
    """

    def __init__(self, limit: int = LINE_BYTES) -> None:
        self.skipped = 0
        """Lines that were longer than the limit."""
        self._limit = limit
        self._tail = b""
        self._inside_skipped = False
        self._decoder: codecs.IncrementalDecoder | None = None
        self._started = False

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the lines that a piece completes, in UTF-8 and without their ends."""
        return self.feed_block(piece).splitlines()

    def feed_block(self, piece: bytes) -> bytes:
        """Return the lines that a piece completes as one text, in UTF-8."""
        block = self._tail + self._as_utf8(piece)
        end = max(block.rfind(b"\n"), block.rfind(b"\r")) + 1
        if not end:
            self._tail = block
            self._shorten_tail()
            return b""
        self._tail = block[end:]
        block = block[:end]
        if self._inside_skipped:  # it begins with the rest of a line that was too long
            self._inside_skipped = False
            block = block[min(at for at in (block.find(b"\n"), block.find(b"\r")) if at >= 0) + 1 :]
        if end > self._limit:
            lines = block.splitlines(keepends=True)
            if lines and max(map(len, lines)) > self._limit:
                self.skipped += sum(len(line) > self._limit for line in lines)
                block = b"".join(line for line in lines if len(line) <= self._limit)
        self._shorten_tail()
        return block

    @property
    def tail(self) -> bytes:
        """The last line, not ended yet; empty inside a line that is too long."""
        return b"" if self._inside_skipped else self._tail

    def begin_anew(self) -> None:
        """Go on with another text: what is left of a line without an end is dropped."""
        self._tail, self._inside_skipped, self._started, self._decoder = b"", False, False, None

    def _shorten_tail(self) -> None:
        if self._inside_skipped:
            self._tail = b""
        elif len(self._tail) > self._limit:
            self.skipped += 1
            self._inside_skipped, self._tail = True, b""

    def _as_utf8(self, piece: bytes) -> bytes:
        if not self._started and piece:
            self._started = True
            encoding, mark = encoding_of(piece)
            piece = piece[mark:]
            if encoding != "utf-8":
                self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        if self._decoder is None:
            return piece
        return self._decoder.decode(piece).encode("utf-8", "replace")
