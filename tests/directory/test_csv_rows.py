"""The CSV of an import: what is written can be read, what is broken is located."""

from __future__ import annotations

import contextlib
import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.directory.csv_rows import COLUMNS, Row, RowError, read_rows
from moim.errors import UsageError

VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


def rows_of(text: str | bytes) -> list[Row | RowError]:
    return list(read_rows(io.BytesIO(text if isinstance(text, bytes) else text.encode())))


@given(
    st.lists(st.fixed_dictionaries(dict.fromkeys(COLUMNS, VALUES)), max_size=8),
    st.permutations(COLUMNS),
    st.booleans(),
)
def test_round_trip(people: list[dict[str, str]], order: list[str], mark: bool) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, order)
    writer.writeheader()
    writer.writerows(people)
    found = rows_of(("\ufeff" if mark else "") + text.getvalue())
    expected = [one for one in people if any(value.strip() for value in one.values())]
    assert [(row.address, row.password) for row in found if isinstance(row, Row)] == [
        (one["address"].strip(), one["password"]) for one in expected
    ]
    assert [row.fields for row in found if isinstance(row, Row)] == [
        {name: one[name] for name in order if name not in ("address", "password")} for one in expected
    ]


@given(st.binary(max_size=400))
def test_rubbish_never_crashes(data: bytes) -> None:
    for text in (data, b"address,password\n" + data):
        with contextlib.suppress(UsageError):
            list(read_rows(io.BytesIO(text)))


def test_lines_are_those_of_the_file() -> None:
    quoted = 'password,address,title\r\nsecret-1,a@example.com,"one\r\ntwo"\r\n\r\n'
    text = f"{quoted}secret-2,b@example.com\r\nsecret-3,c@example.com,x\r\n"
    assert rows_of(text) == [
        Row(2, "a@example.com", "secret-1", {"title": "one\r\ntwo"}),
        RowError(5, "", "the row has 2 columns, the heading 3"),
        Row(6, "c@example.com", "secret-3", {"title": "x"}),
    ]


def test_a_line_that_is_not_utf8_costs_only_itself() -> None:
    text = (
        b"address,password\na@example.com,secret-1\n"
        + "김@example.com,secret-2\n".encode("cp949")
        + b"c@example.com,s3\n"
    )
    found = rows_of(text)
    assert [type(one) for one in found] == [Row, RowError, Row]
    assert isinstance(found[1], RowError)
    assert found[1].line == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("address\na@example.com\n", "no column 'password'"),
        ("address,password,shoe\n", "'shoe'"),
        ("address;password\n", "commas"),
        ("address,password,address\n", "twice"),
        ("address,password\na@example.com," + "x" * 20_000 + "\n", "longer"),
        ('address,password\na@example.com,"' + "x\n" * 10_000, "never closed"),
    ],
)
def test_files_that_cannot_be_read_say_why(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        rows_of(text)
    assert said in str(caught.value)
