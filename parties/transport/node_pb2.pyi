# mypy: ignore-errors
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class HelloRequest(_message.Message):
    __slots__ = ("version", "party", "unix_seconds")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PARTY_FIELD_NUMBER: _ClassVar[int]
    UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    version: int
    party: str
    unix_seconds: int
    def __init__(self, version: _Optional[int] = ..., party: _Optional[str] = ..., unix_seconds: _Optional[int] = ...) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("version", "party", "unix_seconds")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PARTY_FIELD_NUMBER: _ClassVar[int]
    UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    version: int
    party: str
    unix_seconds: int
    def __init__(self, version: _Optional[int] = ..., party: _Optional[str] = ..., unix_seconds: _Optional[int] = ...) -> None: ...

class ProposeRequest(_message.Message):
    __slots__ = ("spec",)
    SPEC_FIELD_NUMBER: _ClassVar[int]
    spec: bytes
    def __init__(self, spec: _Optional[bytes] = ...) -> None: ...

class JobRequest(_message.Message):
    __slots__ = ("job_id", "spec_hash", "code", "detail")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_HASH_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    spec_hash: bytes
    code: str
    detail: str
    def __init__(self, job_id: _Optional[str] = ..., spec_hash: _Optional[bytes] = ..., code: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class JobReply(_message.Message):
    __slots__ = ("state", "code", "detail", "spec")
    STATE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    state: str
    code: str
    detail: str
    spec: bytes
    def __init__(self, state: _Optional[str] = ..., code: _Optional[str] = ..., detail: _Optional[str] = ..., spec: _Optional[bytes] = ...) -> None: ...

class EndRequest(_message.Message):
    __slots__ = ("ending",)
    ENDING_FIELD_NUMBER: _ClassVar[int]
    ending: bytes
    def __init__(self, ending: _Optional[bytes] = ...) -> None: ...

class EndReply(_message.Message):
    __slots__ = ("party", "ended_at")
    PARTY_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    party: str
    ended_at: str
    def __init__(self, party: _Optional[str] = ..., ended_at: _Optional[str] = ...) -> None: ...

class CatalogueRequest(_message.Message):
    __slots__ = ("agreement_id",)
    AGREEMENT_ID_FIELD_NUMBER: _ClassVar[int]
    agreement_id: str
    def __init__(self, agreement_id: _Optional[str] = ...) -> None: ...

class CatalogueReply(_message.Message):
    __slots__ = ("catalogue",)
    CATALOGUE_FIELD_NUMBER: _ClassVar[int]
    catalogue: bytes
    def __init__(self, catalogue: _Optional[bytes] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("job_id", "sequence", "stage", "payload", "control", "stage_json", "beat")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    CONTROL_FIELD_NUMBER: _ClassVar[int]
    STAGE_JSON_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    sequence: int
    stage: str
    payload: bytes
    control: bytes
    stage_json: bytes
    beat: bool
    def __init__(self, job_id: _Optional[str] = ..., sequence: _Optional[int] = ..., stage: _Optional[str] = ..., payload: _Optional[bytes] = ..., control: _Optional[bytes] = ..., stage_json: _Optional[bytes] = ..., beat: _Optional[bool] = ...) -> None: ...

class OperatorRequest(_message.Message):
    __slots__ = ("method", "body")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    method: str
    body: bytes
    def __init__(self, method: _Optional[str] = ..., body: _Optional[bytes] = ...) -> None: ...

class OperatorReply(_message.Message):
    __slots__ = ("body",)
    BODY_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    def __init__(self, body: _Optional[bytes] = ...) -> None: ...
