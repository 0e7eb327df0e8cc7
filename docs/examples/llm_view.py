from realtime import json_errors, require_user
from realtime.llm.answer_stream import answer_on_request


@json_errors("GET")
async def ask(request):
    user = await require_user(request)
    return await answer_on_request(request, request.GET.get("prompt"), user)
