from realtime import Progress


def import_rows(user, rows):
    with Progress(f"user.{user.pk}.import", of=len(rows)) as progress:
        for row in rows:
            row.save()
            progress.update(text=str(row))


async def import_rows_async(user, rows):
    async with Progress(f"user.{user.pk}.import", of=len(rows)) as progress:
        for row in rows:
            await row.asave()
            await progress.aupdate(text=str(row))
