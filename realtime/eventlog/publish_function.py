"""The function `realtime_publish` of PostgreSQL: for triggers, psql, and services without Python.

A site that changes MAX_EVENT_BYTES later has a migration of its own with `RunPython(create)`: the
function is replaced, and keeps its name and its rights.
"""

from typing import Any, Final

from ..conf import settings
from ..conf.token_scopes import OWN_TOPICS
from ..events.payload import DEFAULT_TYPE, MAX_TYPE_LENGTH, RESET
from ..events.topic import MAX_TOPIC_LENGTH

SIGNATURE: Final = "realtime_publish(text, jsonb, text, boolean)"
PUBLISHED: Final = "realtime_published"  # the channel on which it notifies of topics
MAX_DEPTH: Final = 500  # Python's own limit is about twice that, and that of browsers far above

# The rights are the owner's, so that a role that calls it needs none on the tables. Therefore all
# names are qualified, or of pg_catalog: a caller could define what is found on its search_path.
# Numbers and depth are checked only where the text is long enough for what Python would refuse.
FUNCTION: Final = r"""
CREATE OR REPLACE FUNCTION {schema}.realtime_publish(
    topic text, data jsonb, type text DEFAULT '{default_type}', announce boolean DEFAULT false
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    content text := data::text;
    row_id bigint;
    row_epoch text;
    row_head bigint;
BEGIN
    IF topic IS NULL OR (topic COLLATE "C") !~ '^[A-Za-z0-9_.-]{{1,{max_topic}}}$' THEN
        RAISE EXCEPTION '% can''t be a topic.', coalesce(quote_literal(left(topic, 120)), 'NULL')
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Use 1 to {max_topic} ASCII letters, digits, ''-'', ''_'' or ''.''.';
    ELSIF starts_with(topic, '{own_topics}') THEN
        RAISE EXCEPTION '% is a topic of the package''s own.', quote_literal(topic)
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'By these its processes tell each other what to do: choose a name that does not '
                'begin with ''{own_topics}''.';
    ELSIF type IS NULL OR (type COLLATE "C") !~ '^[^\x01-\x1f\x7f]{{1,{max_type}}}$' THEN
        RAISE EXCEPTION '% can''t be an event''s type.',
            coalesce(quote_literal(left(type, 90)), 'NULL')
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Use 1 to {max_type} characters without control characters.';
    ELSIF type = '{reset}' THEN
        RAISE EXCEPTION 'The event type ''{reset}'' is reserved.'
        USING ERRCODE = 'invalid_parameter_value', HINT = 'Choose another word.';
    ELSIF data IS NULL THEN
        RAISE EXCEPTION 'The data is NULL, which is not JSON.'
        USING ERRCODE = 'null_value_not_allowed', HINT = 'JSON''s null is ''null''::jsonb.';
    ELSIF octet_length(content) > {max_bytes} THEN
        RAISE EXCEPTION 'The data is % bytes of JSON, more than {max_bytes}.', octet_length(content)
        USING ERRCODE = 'program_limit_exceeded',
            HINT = 'Publish a reference to it instead, or raise MAX_EVENT_BYTES and replace this '
                'function: see docs/databases.md of the package.';
    ELSIF octet_length(content) > 300 AND jsonb_path_exists(
        data, 'strict $.** ? (@.type() == "number" && (@ > 1.79e308 || @ < -1.79e308))'
    ) THEN
        RAISE EXCEPTION 'The data holds a number that is out of range.'
        USING ERRCODE = 'numeric_value_out_of_range',
            HINT = 'Give it as a string: readers have floats of 64 bits.';
    ELSIF octet_length(content) > {max_depth} AND jsonb_path_exists(
        data, 'strict $.**{{{max_depth}}}'
    ) THEN
        RAISE EXCEPTION 'The data is nested more than {max_depth} deep.'
        USING ERRCODE = 'program_limit_exceeded', HINT = 'Flatten it.';
    END IF;
    LOOP
        -- As the package's own publishers: this takes the row's lock, which puts events in order.
        UPDATE {topics} AS t SET head = t.head + 1 WHERE t.name = realtime_publish.topic
        RETURNING t.id, t.epoch, t.head INTO row_id, row_epoch, row_head;
        EXIT WHEN FOUND;
        INSERT INTO {topics} (name, epoch, head, created) VALUES (
            topic, left(replace(gen_random_uuid()::text, '-', ''), 12), 0, statement_timestamp()
        ) ON CONFLICT (name) DO NOTHING;
    END LOOP;
    INSERT INTO {events} (topic_id, "offset", type, data, created, batch) VALUES (
        row_id, row_head, type, content, statement_timestamp(), (random() * 9e15)::bigint
    );
    IF announce THEN
        PERFORM pg_notify('{published}', topic);
    END IF;
    RETURN row_epoch || '-' || row_head;
END
$function$
"""


def create(apps: Any, schema_editor: Any) -> None:
    """Create the function, or replace it, beside the log's tables; only on PostgreSQL."""
    if schema_editor.connection.vendor != "postgresql":
        return
    quote = schema_editor.quote_name
    schema = quote(_schema(apps, schema_editor))
    topics, events = (
        f"{schema}.{quote(apps.get_model('realtime', name)._meta.db_table)}"
        for name in ("Topic", "Event")
    )
    function = FUNCTION.format(
        schema=schema,
        topics=topics,
        events=events,
        default_type=DEFAULT_TYPE,
        published=PUBLISHED,
        reset=RESET,
        own_topics=OWN_TOPICS,
        max_topic=MAX_TOPIC_LENGTH,
        max_type=MAX_TYPE_LENGTH,
        max_bytes=int(settings.MAX_EVENT_BYTES),
        max_depth=MAX_DEPTH,
    )
    name = f"{schema}.{SIGNATURE}"
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT to_regprocedure(%s) IS NULL", [name])
        (is_new,) = cursor.fetchone()
    schema_editor.execute(function, params=None)
    if is_new:  # PostgreSQL lets everybody call it
        schema_editor.execute(f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC", params=None)


def drop(apps: Any, schema_editor: Any) -> None:
    """Drop the function; triggers that call it fail from then on."""
    if schema_editor.connection.vendor == "postgresql":
        schema = schema_editor.quote_name(_schema(apps, schema_editor))
        schema_editor.execute(f"DROP FUNCTION IF EXISTS {schema}.{SIGNATURE}", params=None)


def _schema(apps: Any, schema_editor: Any) -> str:
    """Return the schema that has the tables: by the search_path of the connection that migrates."""
    table = schema_editor.quote_name(apps.get_model("realtime", "Topic")._meta.db_table)
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(
            "SELECT nspname FROM pg_namespace JOIN pg_class ON pg_namespace.oid = relnamespace "
            "WHERE pg_class.oid = to_regclass(%s)",
            [table],
        )
        (schema,) = cursor.fetchone()
        return str(schema)
