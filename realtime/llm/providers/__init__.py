"""Find the provider: `LLM_PROVIDER` is a short name or a dotted path."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from django.utils.module_loading import import_string

from ...exceptions import ProviderUnavailable
from ...utils.aio import PerLoop, shielded, spawn
from ..conf import settings
from ..provider import Provider, kind_of, places_of

logger = logging.getLogger("realtime.llm")

SHORT_NAMES: Final = {
    "anthropic": "realtime.llm.providers.anthropic.AnthropicProvider",
    "dummy": "realtime.llm.providers.dummy.DummyProvider",
    "offline": "realtime.llm.providers.offline.OfflineProvider",
    "openai": "realtime.llm.providers.openai.OpenAIProvider",
}
SDKS: Final = frozenset({"anthropic", "openai"})  # short names whose SDK has the same name
_SETTINGS: Final = ("LLM_PROVIDER", "LLM_MODEL", "LLM_API_KEY", "LLM_BASE_URL")

_prepared: dict[tuple[Any, ...], Provider] = {}  # by `preload`, for the first loop that asks


class _Loading:
    """An event loop's provider: made, or being made, from the settings as they were then."""

    wanted: tuple[Any, ...] = ()
    task: asyncio.Task[Provider] | None = None

    async def aclose(self) -> None:
        if self.task is not None and self.task.done():
            await _close(self.task)


_loading: Final = PerLoop(_Loading, _Loading.aclose)


async def get_provider() -> Provider:
    """Return the event loop's provider, made when it is first asked for.

    Raises `ProviderUnavailable`.
    """
    loading, wanted = _loading.get(), _wanted()
    if loading.task is None or loading.wanted != wanted:
        if loading.task is not None:
            spawn(_close(loading.task))
        loading.wanted, loading.task = wanted, spawn(_load(wanted))
    task = loading.task
    try:
        return await shielded(task)
    except ProviderUnavailable:
        if loading.task is task:
            loading.task = None  # the next request tries again
        raise


def preload(**kwargs: Any) -> None:
    """Import and make the provider now, so that no request waits for it.

    `serve` does so before a worker is ready. Under another server, call it in `asgi.py`.
    """
    try:
        _prepared[_wanted()] = _make(settings.LLM_PROVIDER)
    except Exception as error:
        _log_failure(error)  # the first request tries again


def provider_path(name: str) -> str:
    """Return the dotted path behind a short name, or the path itself."""
    return SHORT_NAMES.get(name, name)


async def _load(wanted: tuple[Any, ...]) -> Provider:
    try:
        # In a thread: the SDKs take a second or two to import, and read certificates when made.
        if wanted in _prepared:
            provider = _prepared.pop(wanted)
        else:
            provider = await asyncio.to_thread(_make, wanted[0])
    except Exception as error:
        _log_failure(error)
        raise ProviderUnavailable(
            "The language model's provider is not set up; tell who runs the site."
        ) from None
    return provider


def _wanted() -> tuple[Any, ...]:
    return tuple(getattr(settings, name) for name in _SETTINGS)


def _log_failure(error: Exception) -> None:
    # Not the text of other errors: an SDK might quote a key that it refuses.
    what = str(error) if isinstance(error, ImportError) else kind_of(error) + places_of(error)
    logger.error("The language model's provider can't be loaded: %s", what)


def _make(given: str | Callable[[], Provider]) -> Provider:
    factory = import_string(provider_path(given)) if isinstance(given, str) else given
    provider = factory()
    if not isinstance(provider, Provider):
        raise TypeError(f"{given!r} makes no realtime.llm.provider.Provider.")
    return provider


async def _close(task: asyncio.Task[Provider]) -> None:
    """Close a provider that the settings no longer name, or whose loop ends."""
    with suppress(ProviderUnavailable, asyncio.CancelledError):
        await (await task).aclose()
