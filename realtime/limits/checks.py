"""System check of limits by address: behind a proxy, all clients may look like one."""

from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Warning

from ..conf import settings


def check_addresses(**kwargs: Any) -> list[CheckMessage]:
    """Report limits by address on a site that is behind a proxy, by its other settings."""
    names = [name for name in type(settings).table() if name.endswith("_PER_ADDRESS")]
    set_names = [name for name in names if getattr(settings, name) is not None]
    header = django_settings.SECURE_PROXY_SSL_HEADER
    is_proxied = django_settings.USE_X_FORWARDED_HOST or header is not None
    if not set_names or not is_proxied:
        return []
    message = (
        f"{', '.join(set_names)} count by the client's address, and this site is behind a proxy: "
        "without --proxy-headers, all clients have that of the proxy, and are limited as one."
    )
    hint = (
        "Serve with `-- --proxy-headers --trusted-proxies` and the proxies' networks, and silence "
        "this; or leave the limits by address to the proxy."
    )
    return [Warning(message, hint=hint, id="realtime.W016")]
