"""Every error this package raises on purpose.

    EnlargerError
    ├── InvalidOption            a value the user gave is not acceptable
    ├── InvalidPicture           the bytes are not a picture we can use
    │   ├── UnsupportedFormat
    │   └── PictureTooLarge
    ├── SourceUnreachable        the URL of a picture cannot be fetched
    │   └── AddressRefused
    ├── ModelUnavailable         weights are not on this machine
    │   └── WeightsCorrupt
    ├── RuntimeUnavailable       device, precision or package is not on this machine
    ├── FeatureUnavailable       an option this build cannot honour yet
    ├── OutOfMemory
    ├── NumericFault             the network produced values that are not numbers
    ├── Cancelled
    ├── TimedOut
    ├── DeviceCrashed            the process that computes died
    ├── Unauthorized
    ├── Forbidden                the API key lacks the scope
    ├── NotFound
    ├── AlreadyExists            what may be written once has been written
    ├── IdempotencyConflict      an Idempotency-Key came again with another request
    ├── PayloadTooLarge
    ├── ContentRefused           the operator does not want such pictures
    └── Overloaded               not now; carries `retry_after_seconds`
        ├── RateLimited
        ├── StorageFull
        └── StorageUnavailable

Each class carries a stable `code`, the same in the library, the command line and over HTTP; its docstring is
the sentence that `docs/errors.md` shows. The message of an instance says what happened, with the value, the
limit and the way out.
"""

from __future__ import annotations

import errno


class EnlargerError(Exception):
    """Something went wrong inside enlarger."""

    code = "internal_error"

    @property
    def message(self) -> str:
        return str(self)


class InvalidOption(EnlargerError):
    """An option has a value outside its type, range or list of choices."""

    code = "invalid_option"

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class InvalidPicture(EnlargerError):
    """The bytes are not a complete picture in a format enlarger reads."""

    code = "invalid_picture"


class UnsupportedFormat(InvalidPicture):
    """The picture's format, colour mode or depth is not supported."""

    code = "unsupported_format"


class PictureTooLarge(InvalidPicture):
    """The picture, or the result asked for, has more bytes or pixels than the limit allows."""

    code = "picture_too_large"


class SourceUnreachable(EnlargerError):
    """The URL of the picture could not be fetched."""

    code = "source_unreachable"


class AddressRefused(SourceUnreachable):
    """The URL leads to an address this server does not connect to."""

    code = "address_refused"


class ModelUnavailable(EnlargerError):
    """The weights of the model are not on this machine."""

    code = "model_unavailable"


class WeightsCorrupt(ModelUnavailable):
    """A weights file does not hold what its name promises."""

    code = "weights_corrupt"


class RuntimeUnavailable(EnlargerError):
    """The device, precision or runtime asked for is not available on this machine."""

    code = "runtime_unavailable"


class FeatureUnavailable(EnlargerError):
    """The option needs something this installation does not have."""

    code = "feature_unavailable"


class OutOfMemory(EnlargerError):
    """The picture needs more memory than the device or the machine has free."""

    code = "out_of_memory"


class NumericFault(EnlargerError):
    """The network produced values that are not finite numbers."""

    code = "numeric_fault"


class Cancelled(EnlargerError):
    """The work was cancelled by its owner."""

    code = "cancelled"


class TimedOut(EnlargerError):
    """The work took longer than the limit allows."""

    code = "timed_out"


class DeviceCrashed(EnlargerError):
    """The process that computes on the device ended before the work was done."""

    code = "device_crashed"


class Unauthorized(EnlargerError):
    """The request carries no valid API key."""

    code = "unauthorized"


class Forbidden(EnlargerError):
    """The API key is valid, but not for this: it lacks the scope."""

    code = "forbidden"


class NotFound(EnlargerError):
    """There is nothing under this name, or it belongs to another key."""

    code = "not_found"


class AlreadyExists(EnlargerError):
    """What may be written only once has been written before."""

    code = "already_exists"


class IdempotencyConflict(EnlargerError):
    """The Idempotency-Key was used before, with another request."""

    code = "idempotency_conflict"


class PayloadTooLarge(EnlargerError):
    """The request body is larger than the limit allows."""

    code = "payload_too_large"


class ContentRefused(EnlargerError):
    """The result shows what the operator of this server does not want."""

    code = "content_refused"


class Overloaded(EnlargerError):
    """The server has as much work queued as it accepts."""

    code = "overloaded"

    def __init__(self, message: str, retry_after_seconds: float = 10.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.may_have_happened = False
        """Whether what was asked for may be done all the same: the answer was lost, and nothing may be taken back."""


class RateLimited(Overloaded):
    """The API key has submitted as often as it may for now."""

    code = "rate_limited"


class StorageFull(Overloaded):
    """The server has too little free disk space to take more."""

    code = "storage_full"


class StorageUnavailable(Overloaded):
    """The store of pictures does not answer, or refuses the server."""

    code = "storage_unavailable"


def is_full_disk(error: OSError) -> bool:
    """Whether the disk, or the user's part of it, has no room left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def error_classes() -> dict[str, type[EnlargerError]]:
    """Every class of the tree by its `code`."""

    def walk(cls: type[EnlargerError]) -> list[type[EnlargerError]]:
        return [cls, *(found for child in cls.__subclasses__() for found in walk(child))]

    return {cls.code: cls for cls in walk(EnlargerError)}


def error_from(code: str, message: str) -> EnlargerError:
    """The error of the given code, rebuilt after a trip through a pipe or a database row."""
    return error_classes().get(code, EnlargerError)(message)
