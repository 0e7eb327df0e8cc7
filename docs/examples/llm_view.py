from realtime.llm.responses import answer_on_request
from realtime.views import answers_errors, signed_in


@answers_errors("GET")
async def ask(request):
    user = await signed_in(request)
    return await answer_on_request(request, request.GET.get("prompt"), user)
