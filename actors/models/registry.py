"""The configured models, made once and shared by all turns of a process."""

from __future__ import annotations

import asyncio
import difflib

from actors.errors import InvalidRequest
from actors.models.base import Model
from actors.models.breaker import Breaker
from actors.models.openai import OpenAiModel
from actors.models.scripted import ScriptedModel
from actors.settings import LlmSettings, ModelSettings


class Models:
    """Finds a model by its name in `llm.models`. Models of one `base_url` share its circuit breaker."""

    def __init__(self, settings: LlmSettings) -> None:
        self._default = settings.default
        self._breakers: dict[str, Breaker] = {}
        self._models = {name: self._build(name, entry) for name, entry in settings.models.items()}

    def get(self, name: str | None) -> Model:
        """The named model, or the default one; an unknown name is the caller's mistake."""
        wanted = name or self._default
        if (model := self._models.get(wanted)) is not None:
            return model
        known = sorted(self._models)
        close = difflib.get_close_matches(wanted, known, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise InvalidRequest(
            f"There is no model named {wanted[:100]!r}.",
            field="model_name",
            hint=f"{hint}Known models: {', '.join(known)}.",
        )

    async def close(self) -> None:
        await asyncio.gather(*(model.close() for model in self._models.values()))

    def _build(self, name: str, entry: ModelSettings) -> Model:
        match entry.provider:
            case "scripted":
                return ScriptedModel(name, entry)
            case "openai":
                breaker = self._breakers.setdefault(entry.base_url.rstrip("/"), Breaker())
                return OpenAiModel(name, entry, breaker=breaker)
