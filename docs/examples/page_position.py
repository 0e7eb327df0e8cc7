from django.contrib.auth.models import Group
from django.shortcuts import render

from realtime import position


def groups(request):
    after = position("public.groups")  # first: what is stored from now on comes as an event
    context = {"after": after, "groups": Group.objects.all()}
    return render(request, "page_position.html", context)
