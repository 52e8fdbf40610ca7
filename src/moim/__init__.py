"""Moim: unified communications that an organisation hosts itself."""

__version__ = "0.1.0"
