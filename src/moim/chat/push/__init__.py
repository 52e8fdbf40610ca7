"""XEP-0357 push notifications: wakes a person's programs through the servers of those who made them."""

from moim.chat.push.notifying import Push, Summary
from moim.chat.push.registrations import Registration, Registrations

__all__ = ["Push", "Registration", "Registrations", "Summary"]
