"""Addresses and domain names: what is read, what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.errors import UsageError
from moim.model import Address, domain_name


@pytest.mark.parametrize(
    ("typed", "canonical"),
    [
        ("alice@moim.test", "alice@moim.test"),
        ("  Alice@Moim.TEST. ", "alice@moim.test"),
        ("홍길동@모임.test", "홍길동@xn--v52b68u.test"),
        ("a+b.c@x.example", "a+b.c@x.example"),
    ],
)
def test_reads_what_people_type(typed: str, canonical: str) -> None:
    assert str(Address.parse(typed)) == canonical


@pytest.mark.parametrize(
    "typed", ["", "alice", "@moim.test", "alice@", "a b@x.test", "a/b@x.test", "a@-x.test", "a@x..y"]
)
def test_refuses_what_cannot_be_an_address(typed: str) -> None:
    with pytest.raises(UsageError):
        Address.parse(typed)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        address = Address.parse(text)
    except UsageError:
        return
    assert Address.parse(str(address)) == address


def test_domain_sizes_are_bounded() -> None:
    assert domain_name("a" * 63 + ".test") == "a" * 63 + ".test"
    with pytest.raises(UsageError):
        domain_name("a" * 64 + ".test")
    with pytest.raises(UsageError):
        domain_name(".".join(["a" * 60] * 5))
