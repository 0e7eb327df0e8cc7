"""What the providers over HTTP have in common: our own sentences for an upstream's errors."""

import logging
from typing import Any, Final

from ...server.access_log import RedactingFilter

# These log each request with its URL, and LLM_BASE_URL may have a password.
for name in ("httpx", "httpx2", "openai._base_client", "anthropic._base_client"):
    logging.getLogger(name).addFilter(RedactingFilter())

BY_STATUS: Final = {
    400: "The model's provider does not take this request; its model or limits may be set wrong.",
    401: "The model's provider does not take this site's key; tell who runs the site.",
    402: "This site's account with the model's provider is out of credit.",
    403: "This site's key may not use this model; tell who runs the site.",
    404: "The model's provider does not know the model, or the address is wrong.",
    408: "The model's provider has timed out; try again.",
    413: "The prompt is too long for the model.",
    422: "The model's provider does not take this request; its model or limits may be set wrong.",
    429: "The model's provider is asked too often",
    503: "The model's provider is overloaded; try again later.",
    529: "The model's provider is overloaded; try again later.",
}
BY_TYPE: Final = {
    # Errors in the middle of a stream come with status 200 and say what they are by a type.
    "authentication_error": BY_STATUS[401],
    "billing_error": BY_STATUS[402],
    "invalid_request_error": BY_STATUS[400],
    "not_found_error": BY_STATUS[404],
    "overloaded_error": BY_STATUS[529],
    "permission_error": BY_STATUS[403],
    "rate_limit_error": f"{BY_STATUS[429]}; try again later.",
    "timeout_error": BY_STATUS[408],
}
UNREACHABLE: Final = "The model's provider can't be reached; try again."
TIMED_OUT: Final = "The model's provider did not answer in time; try again."
UNAVAILABLE: Final = "The model's provider has a fault of its own; try again later."
MAX_RETRY_AFTER: Final = 86_400  # seconds; more is no advice


def sentence_for(status: int | None, kind: str | None, retry_after: str | None) -> str | None:
    """Return the sentence for an HTTP status, or for the type that an error names itself."""
    if status == 429:
        if retry_after is not None and retry_after.isdigit() and int(retry_after) < MAX_RETRY_AFTER:
            return f"{BY_STATUS[429]}; try again in {int(retry_after)} s."
        return f"{BY_STATUS[429]}; try again later."
    if status in BY_STATUS:
        return BY_STATUS[status]
    if kind in BY_TYPE:
        return BY_TYPE[kind]
    return UNAVAILABLE if status is not None and status >= 500 else None


def explain(sdk: Any, error: Exception) -> str | None:
    """Return the sentence for an error of the Anthropic or OpenAI SDK, which are made alike."""
    if isinstance(error, sdk.APITimeoutError):
        return TIMED_OUT
    if isinstance(error, sdk.APIConnectionError):
        return UNREACHABLE
    if isinstance(error, sdk.APIError):
        response = getattr(error, "response", None)
        retry_after = None if response is None else response.headers.get("retry-after")
        body = error.body if isinstance(error.body, dict) else {}
        inner = body.get("error", body)
        kind = inner.get("type") if isinstance(inner, dict) else None
        return sentence_for(getattr(error, "status_code", None), kind, retry_after)
    return None
