"""One error base and one catalogue of exit codes, for every command and both sides of the wire."""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What a command's exit status means. Numbers never change their meaning; new ones are appended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONFIG = 10
    PORT_IN_USE = 11
    NO_SPACE = 12
    DEPENDENCY_MISSING = 13
    WEIGHTS_MISSING = 14
    SERVICE_UNAVAILABLE = 15
    DATA_INVALID = 20
    NO_LABELS = 21
    NOTHING_TO_DO = 22
    MODEL_INVALID = 30
    SIGNATURE_INVALID = 31
    POLICY_REFUSED = 32
    KIT_INVALID = 40
    KIT_EXPIRED = 41
    KIT_USED = 42
    KIT_OTHER_SERVER = 43
    NOT_APPROVED = 44
    FORBIDDEN = 45
    NOT_FOUND = 46
    CONFLICT = 47
    GATE_BLOCKED = 50
    RUN_FAILED = 51
    AUDIT_BROKEN = 60
    INTERRUPTED = 130


class HematovisionError(Exception):
    """A business error: a stable code, an HTTP status, an exit code and a sentence that says what to do next.

    The message is public: it never carries inner detail, patient data or a path of another party.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 400
    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UsageError(HematovisionError):
    """The command was called wrongly."""

    code, status, exit_code = "usage", 400, ExitCode.USAGE


class ConfigError(HematovisionError):
    """A setting, home folder or policy file is missing or unreadable."""

    code, status, exit_code = "config", 500, ExitCode.CONFIG


class PortInUseError(HematovisionError):
    """Something else listens on the asked port."""

    code, status, exit_code = "port_in_use", 500, ExitCode.PORT_IN_USE


class NoSpaceError(HematovisionError):
    """The disk is full."""

    code, status, exit_code = "no_space", 507, ExitCode.NO_SPACE


class DependencyMissingError(HematovisionError):
    """A program or package that this command needs is not installed."""

    code, status, exit_code = "dependency_missing", 500, ExitCode.DEPENDENCY_MISSING


class WeightsMissingError(HematovisionError):
    """The pretrained weights of a backbone cannot be found."""

    code, status, exit_code = "weights_missing", 500, ExitCode.WEIGHTS_MISSING


class ServiceUnavailableError(HematovisionError):
    """A server that this command needs does not answer."""

    code, status, exit_code = "service_unavailable", 503, ExitCode.SERVICE_UNAVAILABLE


class DataInvalidError(HematovisionError):
    """Input cannot be read as what it claims to be."""

    code, status, exit_code = "data_invalid", 422, ExitCode.DATA_INVALID


class NoLabelsError(HematovisionError):
    """A data folder carries no usable labels."""

    code, status, exit_code = "no_labels", 422, ExitCode.NO_LABELS


class NothingToDoError(HematovisionError):
    """There is nothing this command could work on."""

    code, status, exit_code = "nothing_to_do", 422, ExitCode.NOTHING_TO_DO


class ModelInvalidError(HematovisionError):
    """A model artefact is damaged or does not fit its card."""

    code, status, exit_code = "model_invalid", 422, ExitCode.MODEL_INVALID


class SignatureInvalidError(HematovisionError):
    """A signature does not verify under the trusted key."""

    code, status, exit_code = "signature_invalid", 403, ExitCode.SIGNATURE_INVALID


class PolicyRefusedError(HematovisionError):
    """The hospital's own policy forbids what was asked."""

    code, status, exit_code = "policy_refused", 403, ExitCode.POLICY_REFUSED


class KitInvalidError(HematovisionError):
    """An enrolment kit is damaged or unknown."""

    code, status, exit_code = "kit_invalid", 403, ExitCode.KIT_INVALID


class KitExpiredError(HematovisionError):
    """An enrolment kit is past its date."""

    code, status, exit_code = "kit_expired", 403, ExitCode.KIT_EXPIRED


class KitUsedError(HematovisionError):
    """An enrolment kit has been used before."""

    code, status, exit_code = "kit_used", 409, ExitCode.KIT_USED


class KitOtherServerError(HematovisionError):
    """An enrolment kit was made by another server."""

    code, status, exit_code = "kit_other_server", 403, ExitCode.KIT_OTHER_SERVER


class NotApprovedError(HematovisionError):
    """The node is not approved by a coordinator (yet, or any more)."""

    code, status, exit_code = "not_approved", 403, ExitCode.NOT_APPROVED


class ForbiddenError(HematovisionError):
    """The actor may not do this."""

    code, status, exit_code = "forbidden", 403, ExitCode.FORBIDDEN


class UnauthenticatedError(HematovisionError):
    """Nobody is signed in, or the credentials are wrong."""

    code, status, exit_code = "unauthenticated", 401, ExitCode.FORBIDDEN


class NotFoundError(HematovisionError):
    """No such thing, or not for this actor."""

    code, status, exit_code = "not_found", 404, ExitCode.NOT_FOUND


class ConflictError(HematovisionError):
    """Somebody else changed it first, or the state does not allow it."""

    code, status, exit_code = "conflict", 409, ExitCode.CONFLICT


class GateBlockedError(HematovisionError):
    """The promotion gate does not pass and no override reason was given."""

    code, status, exit_code = "gate_blocked", 409, ExitCode.GATE_BLOCKED


class RunFailedError(HematovisionError):
    """A federated run failed or got no reply."""

    code, status, exit_code = "run_failed", 502, ExitCode.RUN_FAILED


class AuditBrokenError(HematovisionError):
    """A hash chain of the audit does not verify."""

    code, status, exit_code = "audit_broken", 500, ExitCode.AUDIT_BROKEN


def error_from_code(code: str, message: str) -> HematovisionError:
    """Rebuild the error that the other side of the wire raised, or a plain one for an unknown code."""
    for subclass in HematovisionError.__subclasses__():
        if subclass.code == code:
            return subclass(message)
    return HematovisionError(message)
