"""A session engine whose sessions are rows of the site's own model."""

from django.contrib.sessions.backends import db

from .models import Visit


class SessionStore(db.SessionStore):
    """Of `Visit`."""

    @classmethod
    def get_model_class(cls) -> type[Visit]:
        return Visit
