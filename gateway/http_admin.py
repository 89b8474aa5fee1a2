"""HTTP handlers for operators: taking a node out, and back."""

from __future__ import annotations

from aiohttp import web

from actors.handles import DirectoryHandle
from gateway.auth import Auth
from gateway.http_common import ok, read_json
from gateway.protocol import DrainBody


class AdminHandlers:
    """What the operators' routes need."""

    def __init__(self, auth: Auth, directory: DirectoryHandle) -> None:
        self._auth = auth
        self._directory = directory

    async def drain(self, request: web.Request) -> web.Response:
        """Nothing is placed on the node any more, and the supervisor hands over what is there."""
        self._auth.require_admin(await self._auth.authenticate(request))
        body = await read_json(request, DrainBody) if request.can_read_body else DrainBody()
        node_id = request.match_info["node_id"]
        await self._directory.drain_node(node_id, undo=body.undo)
        return ok({"node_id": node_id, "drained": not body.undo}, 202)
