from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Delivered(_message.Message):
    __slots__ = ["account", "fields", "lease", "path", "remaining_secs", "resume", "secret"]
    class FieldsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    REMAINING_SECS_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    account: DeliveredAccount
    fields: _containers.ScalarMap[str, bytes]
    lease: DeliveredLease
    path: str
    remaining_secs: int
    resume: str
    secret: DeliveredSecret
    def __init__(self, path: _Optional[str] = ..., fields: _Optional[_Mapping[str, bytes]] = ..., secret: _Optional[_Union[DeliveredSecret, _Mapping]] = ..., lease: _Optional[_Union[DeliveredLease, _Mapping]] = ..., account: _Optional[_Union[DeliveredAccount, _Mapping]] = ..., remaining_secs: _Optional[int] = ..., resume: _Optional[str] = ...) -> None: ...

class DeliveredAccount(_message.Message):
    __slots__ = ["rotated_at", "rotates_at"]
    ROTATED_AT_FIELD_NUMBER: _ClassVar[int]
    ROTATES_AT_FIELD_NUMBER: _ClassVar[int]
    rotated_at: str
    rotates_at: str
    def __init__(self, rotated_at: _Optional[str] = ..., rotates_at: _Optional[str] = ...) -> None: ...

class DeliveredLease(_message.Message):
    __slots__ = ["expires_at", "lease_id", "renewable", "ttl_secs"]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    RENEWABLE_FIELD_NUMBER: _ClassVar[int]
    TTL_SECS_FIELD_NUMBER: _ClassVar[int]
    expires_at: str
    lease_id: str
    renewable: bool
    ttl_secs: int
    def __init__(self, lease_id: _Optional[str] = ..., expires_at: _Optional[str] = ..., ttl_secs: _Optional[int] = ..., renewable: bool = ...) -> None: ...

class DeliveredSecret(_message.Message):
    __slots__ = ["created_at", "labels", "version"]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    created_at: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    version: int
    def __init__(self, version: _Optional[int] = ..., created_at: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class FetchItem(_message.Message):
    __slots__ = ["label", "path", "ttl_secs", "version"]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    TTL_SECS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    label: str
    path: str
    ttl_secs: int
    version: int
    def __init__(self, path: _Optional[str] = ..., version: _Optional[int] = ..., label: _Optional[str] = ..., ttl_secs: _Optional[int] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ["idempotency_key", "items"]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    idempotency_key: str
    items: _containers.RepeatedCompositeFieldContainer[FetchItem]
    def __init__(self, items: _Optional[_Iterable[_Union[FetchItem, _Mapping]]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class FetchResponse(_message.Message):
    __slots__ = ["items"]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Delivered]
    def __init__(self, items: _Optional[_Iterable[_Union[Delivered, _Mapping]]] = ...) -> None: ...

class WatchGone(_message.Message):
    __slots__ = ["path"]
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class WatchItem(_message.Message):
    __slots__ = ["label", "lease_id", "path", "resume", "warn_secs"]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    WARN_SECS_FIELD_NUMBER: _ClassVar[int]
    label: str
    lease_id: str
    path: str
    resume: str
    warn_secs: int
    def __init__(self, path: _Optional[str] = ..., lease_id: _Optional[str] = ..., label: _Optional[str] = ..., warn_secs: _Optional[int] = ..., resume: _Optional[str] = ...) -> None: ...

class WatchLease(_message.Message):
    __slots__ = ["expires_at", "lease_id", "remaining_secs", "renewable", "role", "state"]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    REMAINING_SECS_FIELD_NUMBER: _ClassVar[int]
    RENEWABLE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    expires_at: str
    lease_id: str
    remaining_secs: int
    renewable: bool
    role: str
    state: str
    def __init__(self, lease_id: _Optional[str] = ..., role: _Optional[str] = ..., state: _Optional[str] = ..., remaining_secs: _Optional[int] = ..., expires_at: _Optional[str] = ..., renewable: bool = ...) -> None: ...

class WatchRefused(_message.Message):
    __slots__ = ["code", "message", "path", "reason"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    path: str
    reason: str
    def __init__(self, path: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., code: _Optional[int] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ["items", "without_values"]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_VALUES_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[WatchItem]
    without_values: bool
    def __init__(self, items: _Optional[_Iterable[_Union[WatchItem, _Mapping]]] = ..., without_values: bool = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ["changed", "gone", "item", "lease", "refused", "resume"]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    changed: Delivered
    gone: WatchGone
    item: int
    lease: WatchLease
    refused: WatchRefused
    resume: str
    def __init__(self, item: _Optional[int] = ..., resume: _Optional[str] = ..., changed: _Optional[_Union[Delivered, _Mapping]] = ..., gone: _Optional[_Union[WatchGone, _Mapping]] = ..., lease: _Optional[_Union[WatchLease, _Mapping]] = ..., refused: _Optional[_Union[WatchRefused, _Mapping]] = ...) -> None: ...
