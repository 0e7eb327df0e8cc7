from django.contrib.auth.models import Group

from realtime.http.views import answers_errors
from realtime.streaming.ndjson import NDJSONResponse, after_and_limit


@answers_errors("GET")
async def groups(request):
    return NDJSONResponse(Group.objects.all(), fields=("id", "name"), **after_and_limit(request))
