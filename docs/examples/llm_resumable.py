from django.http import HttpResponse, JsonResponse

from realtime import InvalidPrompt, decode_data, error_response, json_errors, require_user
from realtime.llm import generation


@json_errors("POST")
async def ask(request):
    content = decode_data(request.body)
    if not isinstance(content, dict):
        raise InvalidPrompt('Send a JSON object: {"prompt": "..."}')
    user = await require_user(request)
    key = request.headers.get("Idempotency-Key")
    row = await generation.start(user, content.get("prompt"), key=key)
    return JsonResponse({"name": row.name, "topic": row.topic}, status=201)


@json_errors("DELETE")
async def cancel(request, name):
    if not await generation.cancel(name, await require_user(request)):
        return error_response(404, "There is no such answer.")
    return HttpResponse(status=204)
