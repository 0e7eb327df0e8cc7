from realtime import create_token


def token_for(user, order):
    """A token with which the user's browser follows one order, for an hour."""
    scopes = f"read:orders.{order.pk} publish:orders.{order.pk}.chat"
    token, _ = create_token(user, name="order", scopes=scopes, expires_in=3600)
    return token
