from django.core.files.storage import default_storage
from django.db import transaction

from realtime import FileStreamResponse, open_stored


@transaction.non_atomic_requests
async def upload(request, name):
    user = await request.auser()
    source = await open_stored(default_storage, name)
    return FileStreamResponse(request, source, filename=f"{user}-{source.name}")
