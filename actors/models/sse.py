"""Server-sent events, as little of them as chat completions use: the payloads of `data:` lines, bounded."""

from __future__ import annotations

from actors.errors import UpstreamGarbage

MAX_LINE_BYTES = 1 << 20
MAX_STREAM_BYTES = 32 << 20


class DataLines:
    """Cuts bytes as they arrive into the payloads of complete `data:` lines (LF or CRLF)."""

    def __init__(self, max_line: int = MAX_LINE_BYTES, max_stream: int = MAX_STREAM_BYTES) -> None:
        self._max_line = max_line
        self._max_stream = max_stream
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._total = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that `data` completes; a multi-byte character is never split, for lines end at LF."""
        self._total += len(data)
        if self._total > self._max_stream:
            raise UpstreamGarbage(f"The model's server sent more than {self._max_stream} bytes in one answer.")
        lines = data.split(b"\n")
        if self._rest:
            if len(lines) == 1:
                self._keep(data)
                return []
            lines[0] = b"".join((*self._rest, lines[0]))
            self._rest, self._rest_size = [], 0
        last = lines.pop()
        if last:
            self._keep(last)
        return [line[5:].strip() for line in lines if line and self._is_data(line)]

    def rest(self) -> list[bytes]:
        """The payload of a last line without its LF, if there is one: a stream may end so."""
        line = b"".join(self._rest)
        self._rest, self._rest_size = [], 0
        return [line[5:].strip()] if self._is_data(line) else []

    def _is_data(self, line: bytes) -> bool:
        if len(line) > self._max_line:
            raise self._endless()
        return line.startswith(b"data:")

    def _keep(self, piece: bytes) -> None:
        self._rest.append(piece)
        self._rest_size += len(piece)
        if self._rest_size > self._max_line:
            raise self._endless()

    def _endless(self) -> UpstreamGarbage:
        return UpstreamGarbage(f"The model's server sent a line of more than {self._max_line} bytes.")
