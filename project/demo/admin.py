"""The items in the admin."""

from django.contrib import admin

from .models import Item


@admin.register(Item)
class ItemAdmin(admin.ModelAdmin):
    """Made for a million rows: no second count of the whole table."""

    list_display = ["name", "price", "created", "uuid"]
    search_fields = ["name"]
    show_full_result_count = False
