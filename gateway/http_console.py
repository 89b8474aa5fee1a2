"""The web console: static files of gateway/console/, read once, served from memory."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import msgspec
from aiohttp import web
from aiohttp.helpers import ETag

from gateway.auth import AUTH
from storage.errors import NotFound, WunderError

CONSOLE = "/console/"
_FOLDER = Path(__file__).parent / "console"
_INDEX = "index.html"
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_MAX_BYTES = 4 * 1024 * 1024
_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")
_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'{sockets}; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


class ConsoleFile(msgspec.Struct, frozen=True):
    """One file as it goes over the wire; `tag` is its content's hash."""

    body: bytes
    packed: bytes
    content_type: str
    tag: str


class ConsoleHandlers:
    """Serves the files of a folder; what is not one of them does not exist."""

    def __init__(self, folder: Path = _FOLDER) -> None:
        self._files = load_files(folder)

    async def root(self, request: web.Request) -> web.Response:
        """GET /: the console's first page."""
        return web.Response(status=302, headers={"Location": CONSOLE})

    async def file(self, request: web.Request) -> web.Response:
        """GET /console/{path}; a folder's path is its index."""
        found = self._files.get(request.match_info["path"] or _INDEX)
        if found is None:
            raise NotFound("there is nothing at this path")
        headers = {
            "ETag": f'"{found.tag}"',
            "Cache-Control": "no-cache",  # kept, and asked for again: an upgrade never mixes versions for long
            "Content-Security-Policy": _policy(request),
            "Vary": "Accept-Encoding",
        }
        if _is_known(request.if_none_match, found.tag):
            return web.Response(status=304, headers=headers)
        packs = "gzip" in request.headers.get("Accept-Encoding", "")
        if packs:
            headers["Content-Encoding"] = "gzip"
        body = found.packed if packs else found.body
        return web.Response(body=body, headers=headers, content_type=found.content_type, charset="utf-8")


def add_console_routes(app: web.Application, console: ConsoleHandlers) -> None:
    app.router.add_get("/", console.root)
    app.router.add_get("/console", console.root)
    app.router.add_get(CONSOLE + "{path:.*}", console.file)


def load_files(folder: Path) -> dict[str, ConsoleFile]:
    """Every file below the folder by its path there; `WunderError` if there is no page or too much of it."""
    files: dict[str, ConsoleFile] = {}
    size = 0
    for path in sorted(folder.rglob("*")):
        content_type = _TYPES.get(path.suffix)
        if content_type is None or not path.is_file():
            continue
        body = path.read_bytes()
        size += len(body)
        if size > _MAX_BYTES:
            raise WunderError(f"the files of the console are larger than {_MAX_BYTES} bytes")
        tag = hashlib.sha256(body).hexdigest()[:32]
        packed = gzip.compress(body, mtime=0)
        files[path.relative_to(folder).as_posix()] = ConsoleFile(body, packed, content_type, tag)
    if _INDEX not in files:
        raise WunderError(f"the console has no {_INDEX} in {folder}")
    return files


def _is_known(tags: tuple[ETag, ...] | None, tag: str) -> bool:
    return any(known.value in (tag, "*") for known in tags or ())


def _policy(request: web.Request) -> str:
    """The page may talk to its own server only; older browsers do not count a WebSocket as 'self'."""
    host = request.headers.get("Host", "")
    scheme = "wss" if request.app[AUTH].networks.scheme(request) == "https" else "ws"
    return _POLICY.format(sockets=f" {scheme}://{host}" if _HOST.fullmatch(host) else "")
