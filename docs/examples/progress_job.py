from realtime import Progress


def import_rows(user, job, rows):
    with Progress(f"user.{user.pk}.import.{job}", of=len(rows)) as progress:
        for row in rows:
            row.save()
            progress.update(text=str(row))


async def import_rows_async(user, job, rows):
    async with Progress(f"user.{user.pk}.import.{job}", of=len(rows)) as progress:
        for row in rows:
            await row.asave()
            await progress.aupdate(text=str(row))
