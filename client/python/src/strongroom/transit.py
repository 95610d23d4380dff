"""Keys that work for callers who never hold them: ``client.transit.encrypt("transit/orders", b"...")``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, List, Optional, Type

from . import errors
from ._wire import transit_pb2

if TYPE_CHECKING:
    from .client import Client

_KINDS: "dict[str, Type[errors.StrongroomError]]" = {
    "MALFORMED": errors.Invalid,
    "TOO_LARGE": errors.Invalid,
    "NOT_POSSIBLE": errors.Conflict,
}


@dataclass(frozen=True)
class Signature:
    """A signature or an HMAC. Verification asks for the version of the key that made it."""

    signature: bytes
    key_version: int


@dataclass(frozen=True)
class DataKey:
    """A fresh key for the caller's own use, and the same encrypted: keep ``wrapped``, and forget ``plaintext``."""

    wrapped: bytes
    key_version: int
    #: ``None`` when only the wrapped one was asked for.
    plaintext: Optional[bytes] = field(default=None, repr=False)


class Transit:
    """Encryption as a service, over one client. A key is ``MOUNT/NAME``; ``context`` is associated data that is needed again to decrypt."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    def _one(self, method: str, **request: Any) -> Any:
        message = getattr(transit_pb2, f"Transit{method}Request")(**request)
        answer = self._client._read(f"Transit/{method}", message, getattr(transit_pb2, f"Transit{method}Response"))
        (result,) = answer.results
        return result

    def encrypt(self, key: str, plaintext: bytes, *, context: bytes = b"") -> bytes:
        """A ciphertext, by the key's newest version."""
        item = transit_pb2.TransitPlain(plaintext=plaintext, context=context)
        return bytes(_told(self._one("Encrypt", path=key, items=[item])).ciphertext)

    def decrypt(self, key: str, ciphertext: bytes, *, context: bytes = b"") -> bytes:
        """``Invalid`` for a ciphertext that was changed, of another key or context; ``Conflict`` for a version that is not in use any more."""
        item = transit_pb2.TransitSealed(ciphertext=ciphertext, context=context)
        return bytes(_told(self._one("Decrypt", path=key, items=[item])).plaintext)

    def rewrap(self, key: str, ciphertext: bytes, *, context: bytes = b"") -> bytes:
        """The same text under the newest version; it does not leave the daemon."""
        item = transit_pb2.TransitSealed(ciphertext=ciphertext, context=context)
        return bytes(_told(self._one("Rewrap", path=key, items=[item])).ciphertext)

    def sign(self, key: str, data: bytes) -> Signature:
        """A signature by the newest version."""
        made = self._one("Sign", path=key, inputs=[data])
        return Signature(bytes(made.signature), made.key_version)

    def hmac(self, key: str, data: bytes) -> Signature:
        """An HMAC by the newest version."""
        made = self._one("Hmac", path=key, inputs=[data])
        return Signature(bytes(made.signature), made.key_version)

    def verify(self, key: str, data: bytes, made: Signature) -> bool:
        """Whether the named version of the key made this signature or HMAC."""
        item = transit_pb2.TransitToVerify(input=data, signature=made.signature, key_version=made.key_version)
        return bool(_told(self._one("Verify", path=key, items=[item])).valid)

    def data_key(self, key: str, *, size: int = 32, context: bytes = b"", wrapped_only: bool = False) -> DataKey:
        """A fresh key of 32 or 64 bytes. ``decrypt`` opens the wrapped one later."""
        request = transit_pb2.TransitDataKeyRequest(path=key, bytes=size, context=context, wrapped_only=wrapped_only)
        made = self._client._read("Transit/DataKey", request, transit_pb2.TransitDataKeyResponse)
        plaintext = None if wrapped_only else bytes(made.plaintext)
        return DataKey(bytes(made.ciphertext), made.key_version, plaintext)

    def public_keys(self, key: str) -> "List[str]":
        """The public halves of the versions that are kept, in PEM, oldest first; empty texts for a symmetric key."""
        request = transit_pb2.TransitGetKeyRequest(path=key)
        shown = self._client._read("Transit/GetKey", request, transit_pb2.TransitGetKeyResponse)
        return [version.public_key_pem for version in shown.versions]


def _told(result: Any) -> Any:
    if result.WhichOneof("result") == "failure":
        failure = result.failure
        raise _KINDS.get(failure.reason, errors.Internal)(failure.message, failure.reason)
    return result
