"""Texts of digits as JSON, many at once."""

import pytest

from realtime.streaming.sql_json.digits import DECIMAL, HEXADECIMAL, DigitTemplate, write_digits

DAY = DigitTemplate("0000-00-00", '"0000-00-00"')
SECOND = DigitTemplate("00:00:00", '"00.00.00"')
PART = DigitTemplate("00:00:00.000", '"00:00:00.0"')


def test_the_worked_example():
    template = DigitTemplate("0000-00-00", '"0000-00-00"')
    assert template.write(b"2025-01-31,2025-02-01,", 2) == [b'"2025-01-31"', b'"2025-02-01"']


@pytest.mark.parametrize(
    ("texts", "written"),
    [
        (["2025-01-31"], ['"2025-01-31"']),
        (["null"], ["null"]),
        (["null", "2025-01-31", "null"], ["null", '"2025-01-31"', "null"]),
        (["01:02:03.456"], ['"01:02:03.4"']),  # JSON has fewer digits
        (
            ["01:02:03", "2025-01-31", "09:08:07.654"],
            ['"01.02.03"', '"2025-01-31"', '"09:08:07.6"'],
        ),
    ],
    ids=str,
)
def test_each_text_is_written_by_its_template(texts, written):
    found = write_digits(",".join(texts).encode(), len(texts), DECIMAL, [DAY, SECOND, PART])
    assert found == [text.encode() for text in written]


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        ("", 1),
        ("?", 1),
        ("2025-1-31", 1),
        ("2025-01-3a", 1),
        ("2025-01-31 ", 1),
        ("2025-01-31,", 2),
        ("2025-01-31,2025-01-31", 1),
        ("2025-01-31", 2),
        ("null,2025-01-31,x", 3),
    ],
)
def test_a_text_without_a_template_is_left_to_python(texts, count):
    assert write_digits(texts.encode(), count, DECIMAL, [DAY, SECOND]) is None


def test_hexadecimal_digits():
    template = DigitTemplate("0" * 8, '"0000-0000"')
    assert write_digits(b"0a1b2cff,null", 2, HEXADECIMAL, [template]) == [b'"0a1b-2cff"', b"null"]
    assert write_digits(b"0A1B2CFF", 1, HEXADECIMAL, [template]) is None
    assert write_digits(b"0a1b2cff", 1, DECIMAL, [template]) is None
