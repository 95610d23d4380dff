from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class KvCustom(_message.Message):
    __slots__ = ["entries"]
    class EntriesEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.ScalarMap[str, str]
    def __init__(self, entries: _Optional[_Mapping[str, str]] = ...) -> None: ...

class KvDeleteRequest(_message.Message):
    __slots__ = ["idempotency_key", "path", "versions"]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    idempotency_key: str
    path: str
    versions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, path: _Optional[str] = ..., versions: _Optional[_Iterable[int]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class KvDeleteResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class KvDestroyRequest(_message.Message):
    __slots__ = ["all", "idempotency_key", "path", "versions"]
    ALL_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    all: bool
    idempotency_key: str
    path: str
    versions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, path: _Optional[str] = ..., versions: _Optional[_Iterable[int]] = ..., all: bool = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class KvDestroyResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class KvEntry(_message.Message):
    __slots__ = ["folder", "name"]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    folder: bool
    name: str
    def __init__(self, name: _Optional[str] = ..., folder: bool = ...) -> None: ...

class KvGetRequest(_message.Message):
    __slots__ = ["label", "path", "version"]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    label: str
    path: str
    version: int
    def __init__(self, path: _Optional[str] = ..., version: _Optional[int] = ..., label: _Optional[str] = ...) -> None: ...

class KvGetResponse(_message.Message):
    __slots__ = ["created_at", "fields", "labels", "version"]
    class FieldsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    created_at: str
    fields: _containers.ScalarMap[str, bytes]
    labels: _containers.RepeatedScalarFieldContainer[str]
    version: int
    def __init__(self, fields: _Optional[_Mapping[str, bytes]] = ..., version: _Optional[int] = ..., created_at: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class KvHistoryRequest(_message.Message):
    __slots__ = ["path"]
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class KvHistoryResponse(_message.Message):
    __slots__ = ["cas_required", "current", "custom", "versions", "versions_max"]
    class CustomEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CAS_REQUIRED_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    CUSTOM_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_MAX_FIELD_NUMBER: _ClassVar[int]
    cas_required: bool
    current: int
    custom: _containers.ScalarMap[str, str]
    versions: _containers.RepeatedCompositeFieldContainer[KvVersion]
    versions_max: int
    def __init__(self, versions: _Optional[_Iterable[_Union[KvVersion, _Mapping]]] = ..., current: _Optional[int] = ..., versions_max: _Optional[int] = ..., custom: _Optional[_Mapping[str, str]] = ..., cas_required: bool = ...) -> None: ...

class KvListRequest(_message.Message):
    __slots__ = ["page_size", "page_token", "path", "recursive", "search"]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    RECURSIVE_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    path: str
    recursive: bool
    search: str
    def __init__(self, path: _Optional[str] = ..., recursive: bool = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., search: _Optional[str] = ...) -> None: ...

class KvListResponse(_message.Message):
    __slots__ = ["entries", "next_page_token"]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[KvEntry]
    next_page_token: str
    def __init__(self, entries: _Optional[_Iterable[_Union[KvEntry, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class KvPutRequest(_message.Message):
    __slots__ = ["cas", "fields", "idempotency_key", "path"]
    class FieldsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    CAS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    cas: int
    fields: _containers.ScalarMap[str, bytes]
    idempotency_key: str
    path: str
    def __init__(self, path: _Optional[str] = ..., fields: _Optional[_Mapping[str, bytes]] = ..., cas: _Optional[int] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class KvPutResponse(_message.Message):
    __slots__ = ["created_at", "version"]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    created_at: str
    version: int
    def __init__(self, version: _Optional[int] = ..., created_at: _Optional[str] = ...) -> None: ...

class KvSetMetadataRequest(_message.Message):
    __slots__ = ["cas_required", "custom", "idempotency_key", "labels", "path", "versions_max"]
    class LabelsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    CAS_REQUIRED_FIELD_NUMBER: _ClassVar[int]
    CUSTOM_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_MAX_FIELD_NUMBER: _ClassVar[int]
    cas_required: bool
    custom: KvCustom
    idempotency_key: str
    labels: _containers.ScalarMap[str, int]
    path: str
    versions_max: int
    def __init__(self, path: _Optional[str] = ..., custom: _Optional[_Union[KvCustom, _Mapping]] = ..., versions_max: _Optional[int] = ..., cas_required: bool = ..., labels: _Optional[_Mapping[str, int]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class KvSetMetadataResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class KvUndeleteRequest(_message.Message):
    __slots__ = ["idempotency_key", "path", "versions"]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    idempotency_key: str
    path: str
    versions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, path: _Optional[str] = ..., versions: _Optional[_Iterable[int]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class KvUndeleteResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class KvVersion(_message.Message):
    __slots__ = ["created_at", "deleted_at", "destroyed", "labels", "version"]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    DELETED_AT_FIELD_NUMBER: _ClassVar[int]
    DESTROYED_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    created_at: str
    deleted_at: str
    destroyed: bool
    labels: _containers.RepeatedScalarFieldContainer[str]
    version: int
    def __init__(self, version: _Optional[int] = ..., created_at: _Optional[str] = ..., deleted_at: _Optional[str] = ..., destroyed: bool = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...
