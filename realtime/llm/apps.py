"""Language models as an app of their own: `"realtime.llm"` in INSTALLED_APPS."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from ..apps import server_starting


class LLMConfig(AppConfig):
    """Registers the checks, and ends answers whose process or listeners have gone."""

    name = "realtime.llm"
    label = "realtime_llm"  # "llm" alone may well be an app of the site's
    verbose_name = _("Language models")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from ..delivery import hub
        from . import checks
        from .generation import reap_orphans
        from .providers import preload

        checks.register_checks()
        hub.heads_checked.connect(reap_orphans)
        server_starting.connect(preload)
