"""The user of a service token: nobody who has signed in, by its name."""

from django.contrib.auth.models import AnonymousUser

from realtime.access.service_user import ServiceUser


def test_a_service_is_its_name_and_nobody_else():
    billing = ServiceUser("billing")
    assert (str(billing), billing.get_username()) == ("billing", "billing")
    assert billing == ServiceUser("billing")
    assert hash(billing) == hash(ServiceUser("billing"))
    assert billing != ServiceUser("shipping")
    assert billing != AnonymousUser()
    assert AnonymousUser() != billing


def test_a_service_is_no_person():
    billing = ServiceUser("admin")
    rights = (billing.is_authenticated, billing.is_staff, billing.is_superuser, billing.is_active)
    assert not any(rights)
    assert (billing.pk, billing.has_perm("realtime.view_event")) == (None, False)
