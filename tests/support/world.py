"""The world that tools act on: a small HTTP server in a thread with a ledger of what was asked of it (oracle O2)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


class World:
    """`/hold/NAME` is answered once NAME is released; every path is written down when it arrives.

    `on_arrival[path]` is told the port that the request came from, before it is answered.
    """

    def __init__(self) -> None:
        self._ledger: list[str] = []
        self._changed = threading.Condition()
        self._released: set[str] = set()
        self.on_arrival: dict[str, Callable[[int], object]] = {}
        world = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                world.arrived(self.path)
                world.on_arrival.get(self.path, int)(self.client_address[1])
                body = f"effect of {self.path}".encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):  # whoever asked may be dead
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="world", daemon=True)

    def __enter__(self) -> World:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._released.add("*")
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def arrived(self, path: str) -> None:
        name = path.rpartition("/")[2]
        with self._changed:
            self._ledger.append(path)
            self._changed.notify_all()
            if path.startswith("/hold/"):
                self._changed.wait_for(lambda: name in self._released or "*" in self._released, timeout=60)

    def release(self, name: str) -> None:
        with self._changed:
            self._released.add(name)
            self._changed.notify_all()

    def wait_for(self, path: str, count: int = 1, timeout_s: float = 30.0) -> None:
        """Until the world has seen `path` this often."""
        with self._changed:
            seen = self._changed.wait_for(lambda: self._ledger.count(path) >= count, timeout=timeout_s)
        assert seen, f"{path} was seen {self._ledger.count(path)} times, expected {count}"

    def count(self, path: str) -> int:
        with self._changed:
            return self._ledger.count(path)
