"""Strongroom for Python: secrets, leased credentials, and both kept fresh.

Reading order: ``errors``, ``values`` (what is handed out), ``proof`` (of the key that a token is bound to), ``client`` (calls), ``held`` (values that stay fresh), ``transit`` (keys that encrypt and sign for callers).
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
from .proof import ProofKey
from .transit import DataKey, Signature, Transit
from .values import Credential, Delivered, Event, Fields, Follow, SecretVersion, Want

__all__ = [
    "Blank",
    "Client",
    "Conflict",
    "Credential",
    "DataKey",
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
    "ProofKey",
    "Sealed",
    "SecretVersion",
    "Secrets",
    "Signature",
    "StrongroomError",
    "Transit",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "Want",
]
