"""`realtime.company`: who else listens, and for how long that is believed."""

from realtime.announcements import Hello
from realtime.company import ROUNDS, Company


def test_nobody_is_there_at_first():
    assert not Company()


def test_who_says_hello_is_new_once():
    company = Company()
    assert company.hear(Hello("a", 2.0), 0.0)
    assert not company.hear(Hello("a", 2.0), 2.0)
    assert company.hear(Hello("b", 2.0), 2.0)
    assert company


def test_each_is_forgotten_by_its_own_time():
    company = Company()
    company.hear(Hello("often", 1.0), 0.0)
    company.hear(Hello("seldom", 10.0), 0.0)
    company.forget(ROUNDS * 1.0)
    assert not company.hear(Hello("often", 1.0), ROUNDS * 1.0)
    company.forget(2 * ROUNDS * 1.0 + 0.1)
    assert company.hear(Hello("often", 1.0), 11.0)
    company.forget(ROUNDS * 10.0 + 0.1)
    assert not company
    assert company.hear(Hello("seldom", 10.0), 60.0)
