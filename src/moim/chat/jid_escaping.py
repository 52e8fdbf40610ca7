"""XEP-0106 JID escaping: says that local parts with escapes are fine here; clients and gateways write and read them."""

from __future__ import annotations

from moim.chat.feature import Feature

feature = Feature(name="XEP-0106 JID escaping", server_vars=("jid\\20escaping",))
