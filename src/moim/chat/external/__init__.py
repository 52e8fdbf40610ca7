"""XEP-0114: external components, programs beside the server that own a domain: gateways, bots, bridges."""

from moim.chat.external.attached import Attachments, ExternalComponents

__all__ = ["Attachments", "ExternalComponents"]
