from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LeaseGetRequest(_message.Message):
    __slots__ = ["id"]
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class LeaseInfo(_message.Message):
    __slots__ = ["account", "attempts", "created_at", "expires_at", "id", "identity", "last_error", "max_expires_at", "next_attempt_at", "role", "state", "ttl_secs"]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    MAX_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    NEXT_ATTEMPT_AT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TTL_SECS_FIELD_NUMBER: _ClassVar[int]
    account: str
    attempts: int
    created_at: str
    expires_at: str
    id: str
    identity: str
    last_error: str
    max_expires_at: str
    next_attempt_at: str
    role: str
    state: str
    ttl_secs: int
    def __init__(self, id: _Optional[str] = ..., role: _Optional[str] = ..., state: _Optional[str] = ..., account: _Optional[str] = ..., identity: _Optional[str] = ..., created_at: _Optional[str] = ..., expires_at: _Optional[str] = ..., max_expires_at: _Optional[str] = ..., ttl_secs: _Optional[int] = ..., attempts: _Optional[int] = ..., last_error: _Optional[str] = ..., next_attempt_at: _Optional[str] = ...) -> None: ...

class LeaseListRequest(_message.Message):
    __slots__ = ["page_size", "page_token", "prefix"]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    prefix: str
    def __init__(self, prefix: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class LeaseListResponse(_message.Message):
    __slots__ = ["leases", "next_page_token"]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[LeaseInfo]
    next_page_token: str
    def __init__(self, leases: _Optional[_Iterable[_Union[LeaseInfo, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class LeaseRenewRequest(_message.Message):
    __slots__ = ["id", "idempotency_key", "ttl_secs"]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    TTL_SECS_FIELD_NUMBER: _ClassVar[int]
    id: str
    idempotency_key: str
    ttl_secs: int
    def __init__(self, id: _Optional[str] = ..., ttl_secs: _Optional[int] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class LeaseRenewResponse(_message.Message):
    __slots__ = ["expires_at", "ttl_secs"]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    TTL_SECS_FIELD_NUMBER: _ClassVar[int]
    expires_at: str
    ttl_secs: int
    def __init__(self, ttl_secs: _Optional[int] = ..., expires_at: _Optional[str] = ...) -> None: ...

class LeaseRevokeAll(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class LeaseRevokeRequest(_message.Message):
    __slots__ = ["all", "id", "idempotency_key", "identity", "prefix", "wait"]
    ALL_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    all: LeaseRevokeAll
    id: str
    idempotency_key: str
    identity: str
    prefix: str
    wait: bool
    def __init__(self, id: _Optional[str] = ..., prefix: _Optional[str] = ..., identity: _Optional[str] = ..., all: _Optional[_Union[LeaseRevokeAll, _Mapping]] = ..., wait: bool = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class LeaseRevokeResponse(_message.Message):
    __slots__ = ["gone", "queued"]
    GONE_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    gone: int
    queued: int
    def __init__(self, queued: _Optional[int] = ..., gone: _Optional[int] = ...) -> None: ...
