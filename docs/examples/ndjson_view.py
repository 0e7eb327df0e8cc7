from django.contrib.auth.models import Group
from django.urls import path

from realtime import NDJSONResponse, after_and_limit, json_errors


@json_errors("GET")
async def groups(request):
    return NDJSONResponse(Group.objects.all(), fields=("id", "name"), **after_and_limit(request))


urlpatterns = [path("stream/groups", groups)]
