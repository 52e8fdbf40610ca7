"""The XML tree and framer of XMPP, written in Rust: the only XML tree in Moim.

``Element(name, ns, attrs, children)`` is immutable and shares its children, so copies with another ``to`` cost little.
``Element.parse`` reads one document; ``XmlStream`` reads a stream in pieces. Both refuse what RFC 6120 §11.1 restricts
(comments, processing instructions, DTDs, entities other than the five) and everything beyond their bounds, with a
ProtocolError whose ``condition`` is the stream error to answer.
"""

from __future__ import annotations

from moim._native import Element, XmlStream, archivable

__all__ = ["Element", "XmlStream", "archivable"]
