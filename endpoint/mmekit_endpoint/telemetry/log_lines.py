"""Makes log events of a container's output as it comes: whole lines, none too long, in order."""

from __future__ import annotations

#: PutLogEvents: an event has at most 256 KiB, of which 26 bytes are counted for each beside its text.
EVENT_OVERHEAD_BYTES = 26
MAX_LINE_BYTES = 256 * 1024 - EVENT_OVERHEAD_BYTES

#: Room for the mark of a line that was cut.
_MARK_BYTES = 64

#: How long the begin of a line waits for its end, in seconds.
PATIENCE_S = 5.0


class Lines:
    """Splits bytes into lines; the clock is the caller's."""

    def __init__(self) -> None:
        self._begun = b""
        #: Bytes of the line that begun that are left out.
        self._cut = 0
        self._since = 0.0

    def feed(self, data: bytes, now: float) -> list[str]:
        """Return the lines that end in ``data``, without empty ones, which CloudWatch does not take."""
        *ended, rest = data.split(b"\n")
        lines = []
        for part in ended:
            self._extend(part)
            lines += self._take()
        if rest and not self._begun:
            self._since = now
        self._extend(rest)
        return lines

    def flush(self, now: float, *, at_end: bool = False) -> list[str]:
        """Return the begin of a line that has waited long enough for its end, or waits in vain."""
        return self._take() if at_end or now - self._since >= PATIENCE_S else []

    def _extend(self, part: bytes) -> None:
        room = MAX_LINE_BYTES - len(self._begun)
        self._begun += part[:room]
        self._cut += max(0, len(part) - room)

    def _take(self) -> list[str]:
        line, cut = self._begun.rstrip(b"\r"), self._cut
        self._begun, self._cut = b"", 0
        text = line.decode(errors="replace")
        if not text.strip():
            return []
        # What is not UTF-8 takes more room than before.
        encoded = text.encode()
        if cut or len(encoded) > MAX_LINE_BYTES:
            kept = encoded[: MAX_LINE_BYTES - _MARK_BYTES]
            cut += len(encoded) - len(kept)
            text = f"{kept.decode(errors='ignore')} … [{cut} bytes were cut]"
        return [text]
