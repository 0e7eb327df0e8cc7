from django.contrib.auth.models import Group

from realtime.ndjson import NDJSONResponse, after_and_limit
from realtime.views import answers_errors


@answers_errors("GET")
async def groups(request):
    return NDJSONResponse(Group.objects.all(), fields=("id", "name"), **after_and_limit(request))
