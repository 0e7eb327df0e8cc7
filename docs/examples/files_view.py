from django.contrib.auth.models import Group
from django.db import transaction

from realtime import CSVResponse, FileStreamResponse, ZipResponse, files_below, open_file

REPORTS = "/srv/reports"


@transaction.non_atomic_requests
async def report(request, name):
    return FileStreamResponse(request, await open_file(REPORTS, name))


@transaction.non_atomic_requests
async def all_reports(request):
    return ZipResponse(await files_below(REPORTS), filename="reports.zip")


@transaction.non_atomic_requests
async def groups(request):
    return CSVResponse(Group.objects.all(), fields=("id", "name"), escape_formulas=True)
