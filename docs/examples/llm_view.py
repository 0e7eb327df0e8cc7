from realtime.http.views import answers_errors, signed_in
from realtime.llm.answer_stream import answer_on_request


@answers_errors("GET")
async def ask(request):
    user = await signed_in(request)
    return await answer_on_request(request, request.GET.get("prompt"), user)
