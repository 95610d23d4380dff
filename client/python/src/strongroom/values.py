"""What is asked for and what is handed out. Printing any of it never shows a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Union

from .errors import StrongroomError


class Fields(Dict[str, bytes]):
    """Names and values; prints the names."""

    def __repr__(self) -> str:
        return "Fields(" + ", ".join(f"{name}=redacted" for name in self) + ")"

    __str__ = __repr__


class _WithFields:
    fields: Fields

    def text(self, name: str) -> str:
        """A field as text. ``KeyError`` names the fields there are."""
        if name not in self.fields:
            raise KeyError(f"no field {name!r}; there are: {', '.join(self.fields)}")
        return self.fields[name].decode()


@dataclass(frozen=True)
class SecretVersion(_WithFields):
    """One version of a secret."""

    path: str
    version: int
    created_at: str
    labels: "tuple[str, ...]"
    fields: Fields


@dataclass(frozen=True)
class Credential(_WithFields):
    """A credential of a role. ``lease_id`` is ``None`` for a static role, which rotates instead of expiring."""

    role: str
    lease_id: Optional[str]
    fields: Fields
    ttl_secs: int
    expires_at: str
    renewable: bool
    rotates_at: str
    rotated_at: str


@dataclass(frozen=True)
class Want:
    """One thing to fetch: a secret (``kv/prod/db``) or a role (``pg/readers``)."""

    path: str
    version: Optional[int] = None
    label: Optional[str] = None
    ttl_secs: int = 0


@dataclass(frozen=True)
class Delivered(_WithFields):
    """A secret or credential, as it was delivered."""

    path: str
    fields: Fields
    #: ``secret``, ``lease`` or ``account``.
    kind: str
    #: Of a secret.
    version: Optional[int] = None
    #: Of a lease.
    lease_id: Optional[str] = None
    renewable: bool = False
    ttl_secs: int = 0
    #: For how long it is good unless something is done; ``None``: until it is changed.
    remaining_secs: Optional[int] = None
    #: For ``Follow.resume``: this was seen.
    resume: str = ""


@dataclass
class Follow:
    """One thing to follow: a secret or static role by its path, or a lease by its id."""

    path: str = ""
    lease_id: str = ""
    label: str = ""
    warn_secs: int = 0
    resume: str = ""


@dataclass(frozen=True)
class Event:
    """What happened to the ``item``-th of the things that are followed."""

    item: int
    #: ``changed`` (with ``delivered``), ``gone``, ``expiring``, ``revoking``, ``refused`` (with ``error``: nothing more comes of it).
    what: str
    resume: str
    delivered: Optional[Delivered] = None
    remaining_secs: int = 0
    renewable: bool = False
    error: Optional[StrongroomError] = None


#: What calls take where a path is enough.
Wanted = Union[str, Want]
Followed = Union[str, Follow]

