from django.db import transaction

from realtime.models import IdempotencyKey, Topic


def delete_topics_without_events(prefix):
    kept = IdempotencyKey.objects.values("topic")  # what is published with these again is known
    empty = Topic.objects.filter(name__startswith=prefix, events=None).exclude(pk__in=kept)
    pks = list(empty.values_list("pk", flat=True)[:1000])
    with transaction.atomic():
        list(Topic.objects.filter(pk__in=pks).order_by("name").select_for_update())
        empty.filter(pk__in=pks).delete()  # but for those published to meanwhile
    return len(pks)
