"""What holds for a topic, and that it is looked up once."""

from django.test import override_settings

from realtime.conf.topics import CACHED_TOPICS, TopicSettings, topic_settings

SITE = {"RETENTION_EVENTS": 10, "RETENTION_SECONDS": None}


def test_without_patterns_it_is_what_holds_for_the_site():
    with override_settings(REALTIME=SITE):
        assert topic_settings("a") == TopicSettings(None, 10, False, "rule", "rule", None, False)


def test_the_first_pattern_that_matches_counts_and_then_the_site():
    topics = {
        "room.lobby": {"STATE": True},
        "room.*": {"RETENTION_EVENTS": 5, "PUBLISH": "staff"},
        "*": {"RETENTION_SECONDS": 60, "READ": "users"},
    }
    with override_settings(REALTIME={**SITE, "TOPICS": topics}):
        assert topic_settings("room.lobby") == TopicSettings(
            None, 10, True, "rule", "rule", None, False
        )
        assert topic_settings("room.a") == TopicSettings(
            None, 5, False, "rule", "staff", None, False
        )
        assert topic_settings("other") == TopicSettings(60, 10, False, "users", "rule", None, False)


def test_none_of_a_pattern_is_not_the_site_s():
    topics = {"audit.*": {"RETENTION_EVENTS": None}}
    with override_settings(REALTIME={**SITE, "TOPICS": topics}):
        assert topic_settings("audit.a").retention_events is None


def test_it_is_looked_up_once_and_anew_after_a_change():
    with override_settings(REALTIME={"TOPICS": {"a": {"STATE": True}}}):
        assert topic_settings("a").is_state
        assert topic_settings("a") is topic_settings("a")
    assert not topic_settings("a").is_state
    with override_settings(DEBUG=True):
        assert topic_settings.cache_info().currsize > 0


def test_any_number_of_topics_takes_bounded_memory():
    for number in range(CACHED_TOPICS + 10):
        topic_settings(f"t{number}")
    assert topic_settings.cache_info().currsize == CACHED_TOPICS
    topic_settings.cache_clear()
