"""System checks of the language models: their settings, and a provider that can be loaded."""

from importlib.util import find_spec
from typing import Any

from django.core import checks
from django.core.checks import CheckMessage, Error

from ..checks import LLM_PREFIX, check_table, with_usable_settings
from ..conf.setting import given
from .conf import Settings, settings
from .providers import SDKS, SHORT_NAMES, provider_path


def register_checks() -> None:
    """Register what Django calls; called when the app registry is ready."""
    for check in (check_settings, check_provider):
        checks.register(check, "realtime")


@with_usable_settings
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Report unknown keys and wrong values among the settings that begin with `LLM_`."""
    return check_table(Settings.table(), [n for n in given() if str(n).startswith(LLM_PREFIX)])


@with_usable_settings
def check_provider(**kwargs: Any) -> list[CheckMessage]:
    """Report a provider that can't be found, without the seconds that loading takes."""
    provider = settings.LLM_PROVIDER
    if not isinstance(provider, str):
        return []
    module, _, name = provider_path(provider).rpartition(".")
    try:
        is_found = bool(name) and find_spec(module) is not None
    except (ImportError, ValueError):
        is_found = False
    if not is_found:
        hint = f"Use {', '.join(sorted(SHORT_NAMES))}, or the dotted path of a Provider."
        message = f"REALTIME['LLM_PROVIDER'] = {provider!r} can't be found."
        return [Error(message, hint=hint, id="realtime.E009")]
    if provider in SDKS and find_spec(provider) is None:
        message = f"REALTIME['LLM_PROVIDER'] = {provider!r} needs its SDK, which is not installed."
        return [Error(message, hint=f"pip install {provider}", id="realtime.E009")]
    return []
