from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class TokenCreateRequest(_message.Message):
    __slots__ = ["attributes", "end_leases", "exactly", "groups", "idempotency_key", "identity", "max_ttl_secs", "ttl_secs"]
    class AttributesEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    END_LEASES_FIELD_NUMBER: _ClassVar[int]
    EXACTLY_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    MAX_TTL_SECS_FIELD_NUMBER: _ClassVar[int]
    TTL_SECS_FIELD_NUMBER: _ClassVar[int]
    attributes: _containers.ScalarMap[str, str]
    end_leases: bool
    exactly: bool
    groups: _containers.RepeatedScalarFieldContainer[str]
    idempotency_key: str
    identity: str
    max_ttl_secs: int
    ttl_secs: int
    def __init__(self, identity: _Optional[str] = ..., groups: _Optional[_Iterable[str]] = ..., attributes: _Optional[_Mapping[str, str]] = ..., ttl_secs: _Optional[int] = ..., max_ttl_secs: _Optional[int] = ..., end_leases: bool = ..., idempotency_key: _Optional[str] = ..., exactly: bool = ...) -> None: ...

class TokenCreateResponse(_message.Message):
    __slots__ = ["accessor", "expires_at", "session", "token", "ttl_secs"]
    ACCESSOR_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TTL_SECS_FIELD_NUMBER: _ClassVar[int]
    accessor: str
    expires_at: str
    session: str
    token: str
    ttl_secs: int
    def __init__(self, token: _Optional[str] = ..., accessor: _Optional[str] = ..., ttl_secs: _Optional[int] = ..., expires_at: _Optional[str] = ..., session: _Optional[str] = ...) -> None: ...

class TokenGetRequest(_message.Message):
    __slots__ = ["accessor"]
    ACCESSOR_FIELD_NUMBER: _ClassVar[int]
    accessor: str
    def __init__(self, accessor: _Optional[str] = ...) -> None: ...

class TokenInfo(_message.Message):
    __slots__ = ["accessor", "attributes", "created_at", "expires_at", "groups", "identity", "max_expires_at", "purpose", "session", "ttl_secs"]
    class AttributesEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ACCESSOR_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    MAX_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TTL_SECS_FIELD_NUMBER: _ClassVar[int]
    accessor: str
    attributes: _containers.ScalarMap[str, str]
    created_at: str
    expires_at: str
    groups: _containers.RepeatedScalarFieldContainer[str]
    identity: str
    max_expires_at: str
    purpose: str
    session: str
    ttl_secs: int
    def __init__(self, accessor: _Optional[str] = ..., identity: _Optional[str] = ..., groups: _Optional[_Iterable[str]] = ..., attributes: _Optional[_Mapping[str, str]] = ..., created_at: _Optional[str] = ..., expires_at: _Optional[str] = ..., max_expires_at: _Optional[str] = ..., session: _Optional[str] = ..., purpose: _Optional[str] = ..., ttl_secs: _Optional[int] = ...) -> None: ...

class TokenRenewRequest(_message.Message):
    __slots__ = ["accessor", "idempotency_key", "ttl_secs"]
    ACCESSOR_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    TTL_SECS_FIELD_NUMBER: _ClassVar[int]
    accessor: str
    idempotency_key: str
    ttl_secs: int
    def __init__(self, accessor: _Optional[str] = ..., ttl_secs: _Optional[int] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class TokenRenewResponse(_message.Message):
    __slots__ = ["expires_at", "ttl_secs"]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    TTL_SECS_FIELD_NUMBER: _ClassVar[int]
    expires_at: str
    ttl_secs: int
    def __init__(self, ttl_secs: _Optional[int] = ..., expires_at: _Optional[str] = ...) -> None: ...

class TokenRevokeRequest(_message.Message):
    __slots__ = ["accessor", "idempotency_key", "session"]
    ACCESSOR_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    accessor: str
    idempotency_key: str
    session: bool
    def __init__(self, accessor: _Optional[str] = ..., session: bool = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class TokenRevokeResponse(_message.Message):
    __slots__ = ["leases_queued", "tokens"]
    LEASES_QUEUED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    leases_queued: int
    tokens: int
    def __init__(self, tokens: _Optional[int] = ..., leases_queued: _Optional[int] = ...) -> None: ...
