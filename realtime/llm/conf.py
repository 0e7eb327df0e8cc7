"""The settings of language models: keys of the same `REALTIME` dict, beside those of the core."""

from typing import Any

from ..conf import Settings as CoreSettings
from ..conf.setting import Secret, Setting


class ProviderName(Setting[Any]):
    """A setting that names a provider, or is one."""

    def find_problem(self, value: Any) -> tuple[str, str] | None:
        """Return what is wrong with a value, without importing anything."""
        return None if callable(value) else super().find_problem(value)


# fmt: off
class Settings(CoreSettings):
    """The core's table, and that of the language models."""
    LLM_PROVIDER = ProviderName("offline", "name or dotted path",
        "`offline`, `anthropic`, `openai`, `dummy`, or the path of a "
        "`realtime.llm.provider.Provider`. One that can't be loaded is answered with 503.")
    LLM_MODEL = Setting("", "name",
        "The model, as its provider calls it. Empty: the provider class's choice.")
    LLM_API_KEY = Secret("", "secret",
        "Empty: where the provider's SDK looks for it (`ANTHROPIC_API_KEY`, `OPENAI_API_KEY`).")
    LLM_BASE_URL = Setting("", "URL",
        "Empty: the provider's own. For `openai`, any compatible server's address up to `/v1`.")
    LLM_MAX_PROMPT_CHARS = Setting(8_000, "characters",
        "A longer prompt is refused (400).")
    LLM_MAX_TOKENS = Setting(4_096, "tokens",
        "Asked of the provider; an answer cut there ends with `stop_reason` `length`.")
    LLM_MAX_ANSWER_CHARS = Setting(32_000, "characters",
        "The answer is cut here and the upstream request closed; `stop_reason` is `length`.")
    LLM_TOKEN_SECONDS = Setting(30.0, "seconds",
        "An upstream that is silent for this long is given up: `event: error`.")
    LLM_KEEPALIVE_SECONDS = Setting(2.0, "seconds",
        "While the upstream is silent, an answer on the request sends a comment this often: a "
        "proxy may notice no earlier than it writes that a client has left, and until then it is "
        "paid for.")
    LLM_ANSWER_SECONDS = Setting(600.0, "seconds",
        "The same, for the whole answer.")
    LLM_PER_PROCESS = Setting(50, "answers",
        "Under way in one process; more are refused (429).")
    LLM_PER_USER = Setting(3, "answers",
        "Under way for one user in all processes; more are refused (429, or `event: error` where "
        "the others are on requests elsewhere).")
    LLM_BATCH_SECONDS = Setting(0.05, "seconds",
        "Tokens that are published to a topic wait this long for more; the first does not wait.")
    LLM_BATCH_CHARS = Setting(2_000, "characters",
        "In one event; more go into several.")
    LLM_HEARTBEAT_SECONDS = Setting(1.0, "seconds",
        "How often a process says that it is at work on an answer, and learns that another has "
        "cancelled it.")
    LLM_LEASE_SECONDS = Setting(10.0, "seconds",
        "An answer without that sign for so long has lost its process: it is ended with an "
        "error, and counts for its user no more. Keep it several heartbeats.")
    LLM_UNHEARD_SECONDS = Setting(60.0, "seconds",
        "An answer on a topic that nobody has listened to for so long is ended with an error.")
# fmt: on


settings = Settings()
