"""The key that a token is bound to (DPoP, RFC 9449): with each call goes a proof that the caller holds it. Needs ``cryptography``."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets as dice
import time
from pathlib import Path
from typing import Any, Dict, Optional, Tuple, Union


class ProofKey:
    """A P-256 key that signs proofs (ES256). Printing it shows nothing of it."""

    def __init__(self, pem: bytes) -> None:
        """:param pem: PKCS#8, as :meth:`pem` gives it and ``strongroom login --dpop`` writes it."""
        serialization, ec, _ = _library()
        key = serialization.load_pem_private_key(pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("a proof key is a P-256 key in PKCS#8: `strongroom login --dpop` makes one")
        self._key = key
        point = key.public_key().public_numbers()
        jwk = {"kty": "EC", "crv": "P-256", "x": _encode(point.x.to_bytes(32, "big")), "y": _encode(point.y.to_bytes(32, "big"))}
        self._header = _encode(json.dumps({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk}).encode())

    @classmethod
    def generate(cls) -> "ProofKey":
        """A new key: keep :meth:`pem` in a file that only you can read, and log in with it (``--proof-key FILE``)."""
        serialization, ec, _ = _library()
        return cls(_pem(ec.generate_private_key(ec.SECP256R1()), serialization))

    @classmethod
    def read(cls, path: Union[str, Path]) -> "ProofKey":
        """The key of a PEM file."""
        return cls(Path(path).read_bytes())

    def pem(self) -> bytes:
        """The key, to be kept in a file."""
        return _pem(self._key, _library()[0])

    def __repr__(self) -> str:
        return "ProofKey(redacted)"

    def proof(self, address: str, token: Optional[str], nonce: Optional[str]) -> str:
        """For one call of ``address``, with ``token`` and the daemon's ``nonce`` if there are."""
        _, ec, (hashes, decode) = _library()
        claims: Dict[str, Any] = {"htm": "POST", "htu": address, "iat": int(time.time()), "jti": dice.token_urlsafe(16)}
        if token is not None:
            claims["ath"] = _encode(hashlib.sha256(token.encode()).digest())
        if nonce is not None:
            claims["nonce"] = nonce
        text = f"{self._header}.{_encode(json.dumps(claims).encode())}"
        r, s = decode(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _library() -> "Tuple[Any, Any, Tuple[Any, Any]]":
    try:
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
    except ImportError as error:
        raise ImportError("proofs of a key need cryptography: pip install 'strongroom-client[dpop]'") from error
    return serialization, ec, (hashes, decode_dss_signature)


def _pem(key: Any, serialization: Any) -> bytes:
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
