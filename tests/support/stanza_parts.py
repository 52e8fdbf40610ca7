"""What a test takes out of a stanza, where the absence of it is the test's failure and not a None."""

from __future__ import annotations

from moim.proto.xmpp import Element


def child(element: Element | None, *names: str | tuple[str, str]) -> Element:
    """The child at the end of ``names``: each a name in the parent's namespace, or a name and a namespace."""
    assert element is not None
    for name in names:
        found = element.find(name) if isinstance(name, str) else element.find(*name)
        assert found is not None, f"no {name} in {element.to_xml()}"
        element = found
    return element


def body(message: Element | None) -> str:
    """The text of a message."""
    return child(message, "body").text
