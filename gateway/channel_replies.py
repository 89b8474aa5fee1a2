"""Tasks whose answer goes to a chat although they did not come from one: checked when they are accepted."""

from __future__ import annotations

from actors.channels.account_book import AccountBook
from actors.channels.email import is_address
from actors.channels.origin import ChannelOrigin
from actors.errors import InvalidRequest
from gateway.protocol import ReplyBody


class ChannelReplies:
    """Takes where an answer is wanted."""

    def __init__(self, book: AccountBook) -> None:
        self._book = book

    async def accepted(self, body: ReplyBody) -> ChannelOrigin:
        """Where the answer goes; `InvalidRequest` names what cannot be."""
        account = await self._book.account(body.account)
        if account is None or not account.settings.enabled:
            field = "reply.account"
            raise InvalidRequest(f"{field}: there is no such account, or it is disabled", field=field)
        if account.settings.channel == "email" and not is_address(body.peer):
            raise InvalidRequest("reply.peer: expected an e-mail address", field="reply.peer")
        return ChannelOrigin(channel=account.settings.channel, account=account.name, peer=body.peer, thread=body.thread)
