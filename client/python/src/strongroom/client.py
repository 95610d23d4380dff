"""Calls: address, token, deadline, retry."""

from __future__ import annotations

import random
import secrets as dice
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, List, Mapping, Optional, Tuple, Union

import grpc

from . import errors
from ._wire import creds_pb2, delivery_pb2, kv_pb2, lease_pb2, token_pb2
from .held import Secrets
from .proof import ProofKey
from .transit import Transit
from .values import Credential, Delivered, Event, Fields, Follow, Followed, SecretVersion, Want, Wanted

#: Attempts of one call, the first included.
_ATTEMPTS_MAX = 4
#: Seconds before the second attempt; doubled, with jitter.
_PAUSE_FIRST = 0.1
_PAUSE_MAX = 2.0
#: Answers of a fetch have 3 MiB of values at most.
_ANSWER_BYTES_MAX = 5 << 20

DEFAULT_ADDRESS = "unix:/run/strongroom/strongroom.sock"


class Client:
    """A connection to one Strongroom, or to an agent. Safe to share between threads.

    :param address: ``https://HOST:PORT`` or ``unix:/path``.
    :param ca_file: PEM of the CA that signed the daemon's certificate; else the system's CAs.
    :param token: the API token; or
    :param token_file: a file that holds it, read again when the token has ended.
    :param proof_key: the key that the token is bound to, or its PEM file: each call carries a proof of it (DPoP). Over TLS only.
    :param timeout: longest time one call may take, retries included, in seconds.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        ca_file: Union[str, Path, None] = None,
        token: Optional[str] = None,
        token_file: Union[str, Path, None] = None,
        proof_key: Union[str, Path, ProofKey, None] = None,
        timeout: float = 15.0,
    ) -> None:
        self._token_file = token_file
        self._token = token
        self._timeout = timeout
        self._proof_key = ProofKey.read(proof_key) if isinstance(proof_key, (str, Path)) else proof_key
        self._nonce: Optional[str] = None
        if token is None and token_file is not None:
            self.reload_token()
        options = [("grpc.max_receive_message_length", _ANSWER_BYTES_MAX), ("grpc.keepalive_time_ms", 20_000)]
        if address.startswith("unix:"):
            if proof_key is not None:
                raise ValueError("a proof key is of use over TLS only: give an https:// address")
            self._channel = grpc.insecure_channel(address, options)
        elif address.startswith("https://"):
            roots = Path(ca_file).read_bytes() if ca_file is not None else None
            place = address[len("https://") :].rstrip("/")
            place = place if ":" in place.rpartition("]")[2] else f"{place}:8470"
            self._origin = f"https://{place}"
            self._channel = grpc.secure_channel(place, grpc.ssl_channel_credentials(roots), options)
        else:
            raise ValueError(f"{address!r} is neither https://HOST:PORT nor unix:/path")

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_token(self, token: str) -> None:
        """Sends another token from now on."""
        self._token = token

    def reload_token(self) -> None:
        """Reads the token from its file again."""
        if self._token_file is not None:
            self._token = Path(self._token_file).read_text().strip()

    # Versioned secrets.

    def get(self, path: str, *, version: Optional[int] = None, label: Optional[str] = None) -> SecretVersion:
        """A version of a secret; the current one unless ``version`` or ``label`` says otherwise."""
        request = kv_pb2.KvGetRequest(path=path, version=version, label=label)
        got = self._read("Kv/Get", request, kv_pb2.KvGetResponse)
        return SecretVersion(path, got.version, got.created_at, tuple(got.labels), Fields(got.fields))

    def put(self, path: str, fields: Mapping[str, bytes], *, cas: Optional[int] = None) -> int:
        """Writes the next version and returns its number. ``cas``: the version that must be current, 0 = none."""
        request = kv_pb2.KvPutRequest(path=path, fields=dict(fields), cas=cas)
        return int(self._change("Kv/Put", request, kv_pb2.KvPutResponse).version)

    # Delivery.

    def fetch(self, wants: Iterable[Wanted]) -> List[Delivered]:
        """Many secrets and credentials in one round trip, in the order asked: all of them, or an error."""
        items = []
        for want in wants:
            want = Want(want) if isinstance(want, str) else want
            item = delivery_pb2.FetchItem(
                path=want.path, version=want.version, label=want.label, ttl_secs=want.ttl_secs
            )
            items.append(item)
        request = delivery_pb2.FetchRequest(items=items)
        answer = self._change("Delivery/Fetch", request, delivery_pb2.FetchResponse)
        return [_delivered(item) for item in answer.items]

    def watch(self, follows: Iterable[Followed], *, values: bool = True) -> "Watch":
        """Follows secrets, static roles and leases: each as it is now unless ``resume`` says that it was seen, then every change."""
        return Watch(self, [Follow(follow) if isinstance(follow, str) else follow for follow in follows], values)

    def secrets(self, wants: Iterable[Wanted]) -> Secrets:
        """Fetches, and holds fresh in the background until closed."""
        return Secrets(self, [Want(want) if isinstance(want, str) else want for want in wants])

    @property
    def transit(self) -> Transit:
        """Keys that encrypt and sign for callers."""
        return Transit(self)

    # Credentials and leases.

    def issue(self, role: str, *, ttl_secs: int = 0) -> Credential:
        """A credential of a role."""
        request = creds_pb2.CredsIssueRequest(role=role, ttl_secs=ttl_secs)
        made = self._change("Creds/Issue", request, creds_pb2.CredsIssueResponse)
        return Credential(
            role,
            made.lease_id or None,
            Fields(made.fields),
            made.ttl_secs,
            made.expires_at,
            made.renewable,
            made.rotates_at,
            made.rotated_at,
        )

    def renew(self, lease_id: str, *, ttl_secs: int = 0) -> "Tuple[int, str]":
        """Extends a lease; its life from now in seconds, and its expiry."""
        request = lease_pb2.LeaseRenewRequest(id=lease_id, ttl_secs=ttl_secs)
        renewed = self._change("Lease/Renew", request, lease_pb2.LeaseRenewResponse)
        return renewed.ttl_secs, renewed.expires_at

    def revoke(self, lease_id: str) -> bool:
        """Revokes a lease and waits for the proof; ``False``: the daemon goes on trying."""
        request = lease_pb2.LeaseRevokeRequest(id=lease_id, wait=True)
        revoked = self._change("Lease/Revoke", request, lease_pb2.LeaseRevokeResponse)
        return bool(revoked.gone >= revoked.queued)

    def renew_token(self, *, ttl_secs: int = 0) -> "Tuple[int, str]":
        """Extends the client's own token; its life from now in seconds, and its expiry."""
        request = token_pb2.TokenRenewRequest(ttl_secs=ttl_secs)
        renewed = self._change("Token/Renew", request, token_pb2.TokenRenewResponse)
        return renewed.ttl_secs, renewed.expires_at

    # How a call is made.

    def _metadata(self, method: str) -> "Tuple[Tuple[str, str], ...]":
        token = self._token
        metadata: "Tuple[Tuple[str, str], ...]" = (("authorization", f"Bearer {token}"),) if token else ()
        if self._proof_key is None:
            return metadata
        address = f"{self._origin}/strongroom.v1.{method}"
        return (*metadata, ("dpop", self._proof_key.proof(address, token or None, self._nonce)))

    def _learn(self, metadata: Any) -> None:
        """Keeps the nonce that an answer tells: the next proof must carry it."""
        for key, value in metadata or ():
            if key == "dpop-nonce":
                self._nonce = value

    def _wants_nonce(self, error: Any) -> bool:
        """Whether a call was refused for want of the daemon's nonce, and nothing else: it is known now, and the call was not looked at."""
        if self._proof_key is None:
            return False
        self._learn(error.initial_metadata())
        self._learn(error.trailing_metadata())
        return errors.of_call(error).reason == "USE_DPOP_NONCE"

    def _call(self, call: Any, method: str, request: Any, deadline: float) -> Any:
        """Calls; once more where the daemon asks for its nonce."""
        asked = False
        while True:
            try:
                timeout = max(deadline - time.monotonic(), 0.001)
                answer, done = call.with_call(request, timeout=timeout, metadata=self._metadata(method))
                self._learn(done.initial_metadata())
                return answer
            except grpc.RpcError as error:
                if asked or not self._wants_nonce(error):
                    raise
                asked = True

    def _read(self, method: str, request: Any, answer: Any) -> Any:
        return self._attempt(method, request, answer, changes=False)

    def _change(self, method: str, request: Any, answer: Any) -> Any:
        request.idempotency_key = dice.token_hex(16)
        return self._attempt(method, request, answer, changes=True)

    def _attempt(self, method: str, request: Any, answer: Any, changes: bool) -> Any:
        call = self._channel.unary_unary(
            f"/strongroom.v1.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        deadline, pause, sent = time.monotonic() + self._timeout, _PAUSE_FIRST, False
        for attempt in range(1, _ATTEMPTS_MAX + 1):
            try:
                return self._call(call, method, request, deadline)
            except grpc.RpcError as error:
                # A change that was cut off may have been made; one that never got a connection was not.
                refused = errors.of_call(error)
                sent = sent or (not refused.reason and "connect" not in str(refused).lower())
                wait = max(pause * random.uniform(0.5, 1.0), refused.retry_after or 0.0)
                last = attempt == _ATTEMPTS_MAX or time.monotonic() + wait >= deadline
                if not errors.is_retryable(refused) or last:
                    if changes and sent and isinstance(refused, (errors.Unavailable, errors.Sealed, errors.Exhausted)):
                        words = f"the change was sent and may have been made: {refused}"
                        refused = errors.Indeterminate(words, refused.reason, refused.request_id)
                    raise refused from None
                time.sleep(wait)
                pause = min(pause * 2, _PAUSE_MAX)
        raise errors.Internal("no attempt was made")


class Watch:
    """An open stream of events. Iterate over it; ``follows`` remembers what was seen, so that it can be opened again."""

    def __init__(self, client: Client, follows: List[Follow], values: bool) -> None:
        self.follows = follows
        open_stream: Callable[..., Any] = client._channel.unary_stream(
            "/strongroom.v1.Delivery/Watch",
            request_serializer=delivery_pb2.WatchRequest.SerializeToString,
            response_deserializer=delivery_pb2.WatchResponse.FromString,
        )
        items = [
            delivery_pb2.WatchItem(
                path=follow.path or None,
                lease_id=follow.lease_id or None,
                label=follow.label,
                warn_secs=follow.warn_secs,
                resume=follow.resume,
            )
            for follow in follows
        ]
        request = delivery_pb2.WatchRequest(items=items, without_values=not values)
        self._client = client
        self._open = lambda: open_stream(request, metadata=client._metadata("Delivery/Watch"))
        self._asked_again = False
        self._closed = threading.Event()
        self._stream = self._open()

    def close(self) -> None:
        """Ends the stream; whoever iterates stops."""
        self._closed.set()
        self._stream.cancel()

    def is_open(self) -> bool:
        """Waits until the daemon has taken or refused the stream; whether it took it. Iterating tells why not."""
        self._client._learn(self._stream.initial_metadata())
        if self._stream.is_active():
            return True
        return self._opens_again(self._stream) and self.is_open()

    def _opens_again(self, refused: Any) -> bool:
        """Once, where the daemon asked for its nonce."""
        if self._asked_again or self._closed.is_set() or not self._client._wants_nonce(refused):
            return False
        self._asked_again = True
        self._stream = self._open()
        return True

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        try:
            response = next(self._stream)
        except grpc.RpcError as error:
            if self._closed.is_set():
                raise StopIteration from None
            if self._opens_again(error):
                return next(self)
            raise errors.of_call(error) from None
        if response.item >= len(self.follows):
            raise errors.Unsupported("the daemon told of something that was not asked for")
        self.follows[response.item].resume = response.resume
        kind = response.WhichOneof("event")
        if kind == "changed":
            return Event(response.item, "changed", response.resume, _delivered(response.changed))
        if kind == "lease":
            lease = response.lease
            return Event(
                response.item, lease.state, response.resume, None, lease.remaining_secs, lease.renewable
            )
        if kind == "refused":
            refused = response.refused
            error = errors.of_item(refused.reason, refused.message, refused.code)
            return Event(response.item, "refused", response.resume, error=error)
        return Event(response.item, "gone", response.resume)


def _delivered(wire: Any) -> Delivered:
    kind = wire.WhichOneof("kind") or ""
    return Delivered(
        path=wire.path,
        fields=Fields(wire.fields),
        kind=kind,
        version=wire.secret.version if kind == "secret" else None,
        lease_id=wire.lease.lease_id if kind == "lease" else None,
        renewable=wire.lease.renewable if kind == "lease" else False,
        ttl_secs=wire.lease.ttl_secs if kind == "lease" else 0,
        remaining_secs=wire.remaining_secs if wire.HasField("remaining_secs") else None,
        resume=wire.resume,
    )
