"""Strongroom for Python: secrets, leased credentials, and both kept fresh.

Reading order: ``errors``, ``values`` (what is handed out), ``client`` (calls), ``held`` (values that stay fresh).
"""

from .client import Client
from .errors import (
    Blank,
    Conflict,
    Denied,
    Exhausted,
    Indeterminate,
    Internal,
    Invalid,
    NotFound,
    Sealed,
    StrongroomError,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from .held import Secrets
from .values import Credential, Delivered, Event, Fields, Follow, SecretVersion, Want

__all__ = [
    "Blank",
    "Client",
    "Conflict",
    "Credential",
    "Delivered",
    "Denied",
    "Event",
    "Exhausted",
    "Fields",
    "Follow",
    "Indeterminate",
    "Internal",
    "Invalid",
    "NotFound",
    "Sealed",
    "SecretVersion",
    "Secrets",
    "StrongroomError",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "Want",
]
