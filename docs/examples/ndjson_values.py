from django.db import transaction

from realtime import NDJSONResponse


@transaction.non_atomic_requests
async def squares(request):
    async def values():
        for number in range(1_000):
            yield {"number": number, "square": number**2}

    return NDJSONResponse(values())
