"""What a client is offered before it signs in: mechanisms, channel bindings, inline features; made once per kind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from moim.proto.xmpp import Element, ns, sasl
from moim.proto.xmpp.hashed_token import HT_BINDINGS
from moim.proto.xmpp.scram import ScramHash, downgrade_hash
from moim.proto.xmpp.stream import features

_HASHES: tuple[ScramHash, ...] = ("SCRAM-SHA-1", "SCRAM-SHA-256")


@dataclass(frozen=True, slots=True)
class Offer:
    """The offer of one kind of connection. ``tokens`` are the mechanisms of XEP-0484, ``protection`` is XEP-0474's."""

    mechanisms: tuple[str, ...]
    tokens: tuple[str, ...]
    protection: Mapping[ScramHash, str]
    features: Element


@dataclass(frozen=True, slots=True)
class Policy:
    """What the negotiation offers. ``stream_features`` are those of an authenticated stream besides bind."""

    domain: str
    allow_plain: bool = False
    channel_binding: bool = True
    attempts: int = 3
    stream_features: tuple[Element, ...] = ()
    tokens: bool = False
    """Whether sign-in by token (XEP-0484) is offered."""
    inline: tuple[Element, ...] = ()
    """What may be asked for inside the sign-in besides a resource and tokens."""
    bind_inline: tuple[str, ...] = ()
    """What may be switched on while a resource is bound."""
    register: bool = False
    """Whether strangers may make accounts (XEP-0077)."""
    hashes: Callable[[], Collection[ScramHash]] = lambda: _HASHES
    """The hashes of SCRAM with which everybody can sign in."""
    _offers: dict[tuple[bool, bool, tuple[str, ...], tuple[ScramHash, ...]], Offer] = field(
        default_factory=dict, repr=False, compare=False
    )
    _signed_in: dict[bool, Element] = field(default_factory=dict, repr=False, compare=False)

    def offer(self, *, encrypted: bool, sheltered: bool, types: tuple[str, ...]) -> Offer:
        """For a connection with or without TLS here; ``sheltered``: nobody else can read it.

        ``types`` are its channel bindings.
        """
        usable = self.hashes()
        hashes = tuple(name for name in _HASHES if name in usable)
        key = (encrypted, sheltered, types if self.channel_binding else (), hashes)
        offer = self._offers.get(key)
        if offer is None:
            offer = self._offers[key] = self._make(*key)
        return offer

    def _make(self, encrypted: bool, sheltered: bool, types: tuple[str, ...], hashes: tuple[ScramHash, ...]) -> Offer:
        # Clients from before XEP-0440 guess a binding from the version of TLS: below 1.3 they would guess wrongly.
        names = sasl.mechanisms(
            encrypted=encrypted, channel_binding="tls-exporter" in types, plain=self.allow_plain, hashes=hashes
        )
        tokens = tuple(
            name for name, kind in HT_BINDINGS.items() if self.tokens and sheltered and (not kind or kind in types)
        )
        listed = [
            Element("mechanisms", ns.SASL, {}, tuple(Element("mechanism", ns.SASL, {}, (name,)) for name in names)),
            self._sasl2(names, tokens),
        ]
        if types:
            kinds = tuple(Element("channel-binding", ns.CHANNEL_BINDING, {"type": kind}) for kind in types)
            listed.append(Element("sasl-channel-binding", ns.CHANNEL_BINDING, {}, kinds))
        if self.register and sheltered:
            listed.append(Element("register", ns.REGISTER_FEATURE))
        protection = {name: downgrade_hash(name, names, types) for name in _HASHES}
        return Offer(names, tokens, protection, features(*listed))

    def _sasl2(self, names: Sequence[str], tokens: Sequence[str]) -> Element:
        switches = tuple(Element("feature", ns.BIND2, {"var": var}) for var in self.bind_inline)
        bind = Element("bind", ns.BIND2, {}, (Element("inline", ns.BIND2, {}, switches),) if switches else ())
        inline = [bind, *self.inline]
        if tokens:
            inline.append(
                Element("fast", ns.FAST, {}, tuple(Element("mechanism", ns.FAST, {}, (name,)) for name in tokens))
            )
        mechanisms = tuple(Element("mechanism", ns.SASL2, {}, (name,)) for name in names)
        return Element("authentication", ns.SASL2, {}, (*mechanisms, Element("inline", ns.SASL2, {}, tuple(inline))))

    def signed_in(self, *, bound: bool) -> Element:
        """The features of an authenticated stream, with or without a resource."""
        if (made := self._signed_in.get(bound)) is None:
            bind = () if bound else (Element("bind", ns.BIND, {}, (Element("required", ns.BIND),)),)
            made = self._signed_in[bound] = features(*bind, *self.stream_features)
        return made
