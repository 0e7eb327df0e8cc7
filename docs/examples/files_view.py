from django.contrib.auth.models import Group

from realtime.streaming.exports import CSVResponse, ZipResponse, files_below
from realtime.streaming.files import FileStreamResponse, open_in

REPORTS = "/srv/reports"


async def report(request, name):
    return FileStreamResponse(request, await open_in(REPORTS, name))


async def all_reports(request):
    return ZipResponse(await files_below(REPORTS), filename="reports.zip")


async def groups(request):
    return CSVResponse(Group.objects.all(), fields=("id", "name"), escape_formulas=True)
