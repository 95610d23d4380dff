from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class CredsIssueRequest(_message.Message):
    __slots__ = ["idempotency_key", "role", "ttl_secs"]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TTL_SECS_FIELD_NUMBER: _ClassVar[int]
    idempotency_key: str
    role: str
    ttl_secs: int
    def __init__(self, role: _Optional[str] = ..., ttl_secs: _Optional[int] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class CredsIssueResponse(_message.Message):
    __slots__ = ["expires_at", "fields", "lease_id", "renewable", "rotated_at", "rotates_at", "ttl_secs"]
    class FieldsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    RENEWABLE_FIELD_NUMBER: _ClassVar[int]
    ROTATED_AT_FIELD_NUMBER: _ClassVar[int]
    ROTATES_AT_FIELD_NUMBER: _ClassVar[int]
    TTL_SECS_FIELD_NUMBER: _ClassVar[int]
    expires_at: str
    fields: _containers.ScalarMap[str, bytes]
    lease_id: str
    renewable: bool
    rotated_at: str
    rotates_at: str
    ttl_secs: int
    def __init__(self, lease_id: _Optional[str] = ..., fields: _Optional[_Mapping[str, bytes]] = ..., ttl_secs: _Optional[int] = ..., expires_at: _Optional[str] = ..., renewable: bool = ..., rotates_at: _Optional[str] = ..., rotated_at: _Optional[str] = ...) -> None: ...

class CredsRotateRequest(_message.Message):
    __slots__ = ["idempotency_key", "role"]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    idempotency_key: str
    role: str
    def __init__(self, role: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class CredsRotateResponse(_message.Message):
    __slots__ = ["rotated_at", "rotates_at"]
    ROTATED_AT_FIELD_NUMBER: _ClassVar[int]
    ROTATES_AT_FIELD_NUMBER: _ClassVar[int]
    rotated_at: str
    rotates_at: str
    def __init__(self, rotated_at: _Optional[str] = ..., rotates_at: _Optional[str] = ...) -> None: ...
