"""Row 15: a language model's answer, on the request or resumable."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import reverse

from realtime import InvalidPrompt, decode_data, error_response, json_errors, require_user
from realtime.llm import generation
from realtime.llm.answer_stream import answer_on_request


@json_errors("GET", "POST")
async def chat(request: HttpRequest) -> HttpResponseBase:
    """`GET /chat?prompt=` streams the answer; `POST /chat` begins one that survives a reload."""
    return await (on_request if request.method == "GET" else resumable)(request)


async def on_request(request: HttpRequest) -> HttpResponseBase:
    """The answer as the body of this response: who leaves has ended it."""
    user = await require_user(request)
    return await answer_on_request(request, request.GET.get("prompt"), user)


async def resumable(request: HttpRequest) -> HttpResponseBase:
    """The answer as events of a topic, which can be read again from the first to the last."""
    body = request.body
    user = await require_user(request)
    data = decode_data(body)
    if not isinstance(data, dict):
        raise InvalidPrompt('Send a JSON object: {"prompt": "..."}')
    key = request.headers.get("Idempotency-Key")
    row = await generation.start(user, data.get("prompt"), key=key)
    return JsonResponse(
        {
            "topic": row.topic,
            "events": f"{reverse('realtime:topic', args=[row.topic])}?after=0",
            "cancel": reverse("demo-chat-cancel", args=[row.name]),
        },
        status=201,
    )


@json_errors("DELETE")
async def cancel(request: HttpRequest, name: str) -> HttpResponseBase:
    """`DELETE /chat/<id>`: the answer ends with what it has."""
    if not await generation.cancel(name, await require_user(request)):
        return error_response(404, "There is no such answer.")
    return HttpResponse(status=204)
