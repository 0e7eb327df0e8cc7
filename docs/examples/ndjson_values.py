from realtime.streaming.ndjson import NDJSONResponse


async def squares(request):
    async def values():
        for number in range(1_000):
            yield {"number": number, "square": number**2}

    return NDJSONResponse(values())
