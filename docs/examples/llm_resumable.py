from django.http import HttpResponse, JsonResponse

from realtime.http.views import answers_errors, problem, signed_in
from realtime.llm import generation


@answers_errors("POST")
async def ask(request):
    prompt = request.body.decode()
    user = await signed_in(request)
    key = request.headers.get("Idempotency-Key")
    row = await generation.start(user, prompt, key=key)
    return JsonResponse({"name": row.name, "topic": row.topic}, status=201)


@answers_errors("DELETE")
async def cancel(request, name):
    if not await generation.cancel(name, await signed_in(request)):
        return problem(404, "There is no such answer.")
    return HttpResponse(status=204)
