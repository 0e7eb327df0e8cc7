"""The demo page."""

from django.http import HttpRequest, HttpResponse


def page(request: HttpRequest) -> HttpResponse:
    """The page."""
    return HttpResponse("demo")
