"""Settings of the configuration files: ``[provisioning]`` in ``moim.toml``."""

from __future__ import annotations

import re

from pydantic import Field, field_validator, model_validator

from moim.settings import Section

PROFILE_SECTIONS = (
    "Voicemail",
    "MailStore",
    "Conferencing",
    "Directory",
    "IMandPresence",
    "CTI",
    "VideoConferenceSchedulingPortal",
)
CONFIG_SECTIONS = ("Client", "Directory", "Options", "Phone", "Policies", "Presence", "Voicemail")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_SECRET = re.compile(r"password$|passwd|secret|token|passcode|\bpin$", re.IGNORECASE)

Parameters = dict[str, dict[str, str]]


class Settings(Section):
    """What clients are told beyond what the site knows of itself."""

    port: int = 6970
    """Catalogue port of the files over HTTP on the inside node; the port profile applies."""
    https_port: int = 6972
    """Catalogue port of the files over HTTPS."""
    requests_per_second: float = Field(default=200, gt=0, le=100_000)
    """Requests that one source may make per second; five times as many in a burst."""
    relogin_lower_seconds: int = Field(default=120, ge=0, le=86_400)
    """After its server has failed, a client waits at least this long before it signs in again (client re-login lower
    limit). Each draws its own moment between the limits, so that they do not all come at once."""
    relogin_upper_seconds: int = Field(default=537, ge=0, le=86_400)
    """And at most this long (client re-login upper limit)."""
    profile: Parameters = Field(default_factory=dict)
    """Parameters of the service profile by section, for example ``profile.Voicemail.PrimaryAddress``."""
    config: Parameters = Field(default_factory=dict)
    """Parameters of ``jabber-config.xml`` by section, for example ``config.Options.StartCallWithVideo``."""

    @model_validator(mode="after")
    def _limits(self) -> Settings:
        if self.relogin_lower_seconds > self.relogin_upper_seconds:
            raise ValueError("relogin_lower_seconds is above relogin_upper_seconds")
        return self

    @field_validator("profile")
    @classmethod
    def _profile_names(cls, value: Parameters) -> Parameters:
        return _checked(value, PROFILE_SECTIONS)

    @field_validator("config")
    @classmethod
    def _config_names(cls, value: Parameters) -> Parameters:
        return _checked(value, CONFIG_SECTIONS)


def _checked(value: Parameters, sections: tuple[str, ...]) -> Parameters:
    for section, parameters in value.items():
        if section not in sections:
            raise ValueError(f"there is no section '{section}'; sections: {', '.join(sections)}")
        for name in parameters:
            if not _NAME.fullmatch(name):
                raise ValueError(f"'{name}' cannot be the name of a parameter")
            if _SECRET.search(name):  # everybody can fetch these files, also without TLS
                raise ValueError(f"'{section}.{name}' would show a secret to everybody; it is not served")
    return value
