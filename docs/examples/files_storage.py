from django.core.files.storage import default_storage

from realtime.streaming.files import FileStreamResponse, open_stored


async def upload(request, name):
    source = await open_stored(default_storage, name)
    return FileStreamResponse(request, source, filename=f"{request.user}-{source.name}")
