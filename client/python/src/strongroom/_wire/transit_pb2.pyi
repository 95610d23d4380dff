from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TransitCiphertext(_message.Message):
    __slots__ = ["ciphertext", "failure", "key_version"]
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    ciphertext: bytes
    failure: TransitFailure
    key_version: int
    def __init__(self, ciphertext: _Optional[bytes] = ..., failure: _Optional[_Union[TransitFailure, _Mapping]] = ..., key_version: _Optional[int] = ...) -> None: ...

class TransitConfigureKeyRequest(_message.Message):
    __slots__ = ["deletion_allowed", "idempotency_key", "min_decryption_version", "path"]
    DELETION_ALLOWED_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    MIN_DECRYPTION_VERSION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    deletion_allowed: bool
    idempotency_key: str
    min_decryption_version: int
    path: str
    def __init__(self, path: _Optional[str] = ..., min_decryption_version: _Optional[int] = ..., deletion_allowed: bool = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class TransitConfigureKeyResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class TransitCreateKeyRequest(_message.Message):
    __slots__ = ["hsm", "idempotency_key", "kind", "path"]
    HSM_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    hsm: str
    idempotency_key: str
    kind: str
    path: str
    def __init__(self, path: _Optional[str] = ..., kind: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., hsm: _Optional[str] = ...) -> None: ...

class TransitCreateKeyResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class TransitDataKeyRequest(_message.Message):
    __slots__ = ["bytes", "context", "path", "wrapped_only"]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_ONLY_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    context: bytes
    path: str
    wrapped_only: bool
    def __init__(self, path: _Optional[str] = ..., bytes: _Optional[int] = ..., context: _Optional[bytes] = ..., wrapped_only: bool = ...) -> None: ...

class TransitDataKeyResponse(_message.Message):
    __slots__ = ["ciphertext", "key_version", "plaintext"]
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
    ciphertext: bytes
    key_version: int
    plaintext: bytes
    def __init__(self, plaintext: _Optional[bytes] = ..., ciphertext: _Optional[bytes] = ..., key_version: _Optional[int] = ...) -> None: ...

class TransitDecryptRequest(_message.Message):
    __slots__ = ["items", "path"]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[TransitSealed]
    path: str
    def __init__(self, path: _Optional[str] = ..., items: _Optional[_Iterable[_Union[TransitSealed, _Mapping]]] = ...) -> None: ...

class TransitDecryptResponse(_message.Message):
    __slots__ = ["results"]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[TransitPlaintext]
    def __init__(self, results: _Optional[_Iterable[_Union[TransitPlaintext, _Mapping]]] = ...) -> None: ...

class TransitDeleteKeyRequest(_message.Message):
    __slots__ = ["idempotency_key", "path"]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    idempotency_key: str
    path: str
    def __init__(self, path: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class TransitDeleteKeyResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class TransitEncryptRequest(_message.Message):
    __slots__ = ["items", "path"]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[TransitPlain]
    path: str
    def __init__(self, path: _Optional[str] = ..., items: _Optional[_Iterable[_Union[TransitPlain, _Mapping]]] = ...) -> None: ...

class TransitEncryptResponse(_message.Message):
    __slots__ = ["results"]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[TransitCiphertext]
    def __init__(self, results: _Optional[_Iterable[_Union[TransitCiphertext, _Mapping]]] = ...) -> None: ...

class TransitFailure(_message.Message):
    __slots__ = ["message", "reason"]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    message: str
    reason: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class TransitGetKeyRequest(_message.Message):
    __slots__ = ["path"]
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class TransitGetKeyResponse(_message.Message):
    __slots__ = ["created_at", "deletion_allowed", "hsm", "id", "kind", "latest_version", "min_decryption_version", "versions"]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    DELETION_ALLOWED_FIELD_NUMBER: _ClassVar[int]
    HSM_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LATEST_VERSION_FIELD_NUMBER: _ClassVar[int]
    MIN_DECRYPTION_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    created_at: str
    deletion_allowed: bool
    hsm: str
    id: str
    kind: str
    latest_version: int
    min_decryption_version: int
    versions: _containers.RepeatedCompositeFieldContainer[TransitKeyVersion]
    def __init__(self, kind: _Optional[str] = ..., latest_version: _Optional[int] = ..., min_decryption_version: _Optional[int] = ..., deletion_allowed: bool = ..., created_at: _Optional[str] = ..., versions: _Optional[_Iterable[_Union[TransitKeyVersion, _Mapping]]] = ..., id: _Optional[str] = ..., hsm: _Optional[str] = ...) -> None: ...

class TransitHmacRequest(_message.Message):
    __slots__ = ["inputs", "path"]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedScalarFieldContainer[bytes]
    path: str
    def __init__(self, path: _Optional[str] = ..., inputs: _Optional[_Iterable[bytes]] = ...) -> None: ...

class TransitHmacResponse(_message.Message):
    __slots__ = ["results"]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[TransitSignature]
    def __init__(self, results: _Optional[_Iterable[_Union[TransitSignature, _Mapping]]] = ...) -> None: ...

class TransitKeyVersion(_message.Message):
    __slots__ = ["created_at", "public_key_pem", "version"]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_PEM_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    created_at: str
    public_key_pem: str
    version: int
    def __init__(self, version: _Optional[int] = ..., created_at: _Optional[str] = ..., public_key_pem: _Optional[str] = ...) -> None: ...

class TransitListKeysRequest(_message.Message):
    __slots__ = ["mount", "page_size", "page_token"]
    MOUNT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    mount: str
    page_size: int
    page_token: str
    def __init__(self, mount: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class TransitListKeysResponse(_message.Message):
    __slots__ = ["names", "next_page_token"]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    next_page_token: str
    def __init__(self, names: _Optional[_Iterable[str]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class TransitPlain(_message.Message):
    __slots__ = ["context", "plaintext"]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    plaintext: bytes
    def __init__(self, plaintext: _Optional[bytes] = ..., context: _Optional[bytes] = ...) -> None: ...

class TransitPlaintext(_message.Message):
    __slots__ = ["failure", "plaintext"]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
    failure: TransitFailure
    plaintext: bytes
    def __init__(self, plaintext: _Optional[bytes] = ..., failure: _Optional[_Union[TransitFailure, _Mapping]] = ...) -> None: ...

class TransitRewrapRequest(_message.Message):
    __slots__ = ["items", "path"]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[TransitSealed]
    path: str
    def __init__(self, path: _Optional[str] = ..., items: _Optional[_Iterable[_Union[TransitSealed, _Mapping]]] = ...) -> None: ...

class TransitRewrapResponse(_message.Message):
    __slots__ = ["results"]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[TransitCiphertext]
    def __init__(self, results: _Optional[_Iterable[_Union[TransitCiphertext, _Mapping]]] = ...) -> None: ...

class TransitRotateKeyRequest(_message.Message):
    __slots__ = ["idempotency_key", "path"]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    idempotency_key: str
    path: str
    def __init__(self, path: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class TransitRotateKeyResponse(_message.Message):
    __slots__ = ["version"]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class TransitSealed(_message.Message):
    __slots__ = ["ciphertext", "context"]
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ciphertext: bytes
    context: bytes
    def __init__(self, ciphertext: _Optional[bytes] = ..., context: _Optional[bytes] = ...) -> None: ...

class TransitSignRequest(_message.Message):
    __slots__ = ["inputs", "path"]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedScalarFieldContainer[bytes]
    path: str
    def __init__(self, path: _Optional[str] = ..., inputs: _Optional[_Iterable[bytes]] = ...) -> None: ...

class TransitSignResponse(_message.Message):
    __slots__ = ["results"]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[TransitSignature]
    def __init__(self, results: _Optional[_Iterable[_Union[TransitSignature, _Mapping]]] = ...) -> None: ...

class TransitSignature(_message.Message):
    __slots__ = ["key_version", "signature"]
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    key_version: int
    signature: bytes
    def __init__(self, signature: _Optional[bytes] = ..., key_version: _Optional[int] = ...) -> None: ...

class TransitToVerify(_message.Message):
    __slots__ = ["input", "key_version", "signature"]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    input: bytes
    key_version: int
    signature: bytes
    def __init__(self, input: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., key_version: _Optional[int] = ...) -> None: ...

class TransitTrimKeyRequest(_message.Message):
    __slots__ = ["idempotency_key", "oldest_version", "path"]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    OLDEST_VERSION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    idempotency_key: str
    oldest_version: int
    path: str
    def __init__(self, path: _Optional[str] = ..., oldest_version: _Optional[int] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class TransitTrimKeyResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class TransitVerified(_message.Message):
    __slots__ = ["failure", "valid"]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    VALID_FIELD_NUMBER: _ClassVar[int]
    failure: TransitFailure
    valid: bool
    def __init__(self, valid: bool = ..., failure: _Optional[_Union[TransitFailure, _Mapping]] = ...) -> None: ...

class TransitVerifyRequest(_message.Message):
    __slots__ = ["items", "path"]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[TransitToVerify]
    path: str
    def __init__(self, path: _Optional[str] = ..., items: _Optional[_Iterable[_Union[TransitToVerify, _Mapping]]] = ...) -> None: ...

class TransitVerifyResponse(_message.Message):
    __slots__ = ["results"]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[TransitVerified]
    def __init__(self, results: _Optional[_Iterable[_Union[TransitVerified, _Mapping]]] = ...) -> None: ...
