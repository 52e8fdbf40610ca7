"""Tokens for the next sign-in (XEP-0484): one message instead of the password's exchange."""

from moim.chat.fast.tokens import FastTokens

__all__ = ["FastTokens"]
