"""What can go wrong, by what the caller should do about it."""

from __future__ import annotations

from typing import Any, Optional, Type

import grpc

from ._wire import details_pb2

_DOMAIN = "strongroom"


class StrongroomError(Exception):
    """A refused or failed call."""

    def __init__(
        self, message: str, reason: str = "", request_id: str = "", retry_after: Optional[float] = None
    ) -> None:
        super().__init__(message)
        #: The daemon's stable word (docs/ERRORS); empty when the answer did not come from Strongroom.
        self.reason = reason
        #: Under which the daemon's log tells the cause.
        self.request_id = request_id
        #: Seconds that the daemon asks to wait before another try.
        self.retry_after = retry_after


class Unauthenticated(StrongroomError):
    """No token, or one that is unknown, expired or revoked."""


class Denied(StrongroomError):
    """Policy refuses, or the thing does not exist: the daemon does not tell which."""


class Sealed(StrongroomError):
    """Operators must unseal the vault."""


class Blank(StrongroomError):
    """The vault was never initialised."""


class NotFound(StrongroomError):
    """No such thing, told to a caller who may know."""


class Conflict(StrongroomError):
    """A precondition does not hold."""


class Invalid(StrongroomError):
    """The request itself is wrong."""


class Exhausted(StrongroomError):
    """A limit: try again later, or with less."""


class Unavailable(StrongroomError):
    """Not reachable, overloaded or timed out; nothing was changed."""


class Indeterminate(StrongroomError):
    """A change was sent and its outcome is not known: read back before repeating it."""


class Unsupported(StrongroomError):
    """The server does not know this call."""


class Internal(StrongroomError):
    """A fault inside the daemon."""


_BY_REASON: "dict[str, Type[StrongroomError]]" = {
    "SEALED": Sealed,
    "BLANK": Blank,
    "INDETERMINATE": Indeterminate,
    "ALREADY_DONE": Indeterminate,
}
_BY_CODE: "dict[grpc.StatusCode, Type[StrongroomError]]" = {
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: Denied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: Conflict,
    grpc.StatusCode.INVALID_ARGUMENT: Invalid,
    grpc.StatusCode.OUT_OF_RANGE: Invalid,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Exhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.UNIMPLEMENTED: Unsupported,
}


def is_retryable(error: StrongroomError) -> bool:
    """Whether the same call may be sent again after a pause: nobody was there, or the daemon said when to come again."""
    return isinstance(error, Unavailable) or (isinstance(error, Exhausted) and bool(error.retry_after))


def of_call(error: Any) -> StrongroomError:
    """The error of a call that gRPC reports as ``error``."""
    reason, request_id, retry_after = "", "", None
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            reason, request_id, retry_after = _details(value)
    kind = _BY_REASON.get(reason) or _BY_CODE.get(error.code(), Internal)
    return kind(error.details() or error.code().name, reason, request_id, retry_after)


def of_item(reason: str, message: str, code: int) -> StrongroomError:
    """The error of one item of many, by the number of gRPC's code."""
    by_number = {known.value[0]: kind for known, kind in _BY_CODE.items()}
    kind = _BY_REASON.get(reason) or by_number.get(code, Internal)
    return kind(message, reason)


def _details(value: bytes) -> "tuple[str, str, Optional[float]]":
    reason, request_id, retry_after = "", "", None
    try:
        for detail in details_pb2.Status.FromString(value).details:
            if detail.type_url.endswith("/google.rpc.ErrorInfo"):
                info = details_pb2.ErrorInfo.FromString(detail.value)
                if info.domain == _DOMAIN:
                    reason, request_id = info.reason, info.metadata.get("request_id", "")
            elif detail.type_url.endswith("/google.rpc.RetryInfo"):
                delay = details_pb2.RetryInfo.FromString(detail.value).retry_delay
                retry_after = delay.seconds + delay.nanos / 1e9
    except Exception:  # what a proxy put there is not ours to understand
        return "", "", None
    return reason, request_id, retry_after
