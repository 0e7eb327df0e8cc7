from django.http import HttpResponse

from realtime import publish


def ring(request):
    publish("public.bell", {"text": "ding"}, type="ring")
    return HttpResponse(status=204)
