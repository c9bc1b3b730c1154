"""Logs are events with fields: structlog, one line each, ids but never a patient, a key or a token."""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED: Final = "[redacted]"
_WORDS: Final = frozenset(
    [
        "authorization",
        "cookie",
        "credential",
        "key",
        "name",
        "passphrase",
        "password",
        "patient",
        "pem",
        "phone",
        "proof",
        "secret",
        "token",
    ]
)
_ALLOWED: Final = frozenset(
    [
        "filename",
        "key_id",
        "logger_name",
        "model_name",
        "process_name",
        "public_key",
        "run_key",
        "service_name",
        "thread_name",
    ]
)
_PART: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_DEEPEST: Final = 6


def is_sensitive(field: str) -> bool:
    """Whether a field of this name is never written: one of its words is, e.g., token, password, patient or name."""
    if field.lower() in _ALLOWED:
        return False
    words = {word.lower() for word in _PART.findall(field)}
    singular = {word.removesuffix("s") for word in words}
    return bool(_WORDS & (words | singular))


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace the values of sensitive fields, at any depth; a structlog processor."""
    for field, value in event.items():
        if field != "event":
            event[field] = REDACTED if is_sensitive(field) else _redacted(value, 0)
    return event


def configure_logging(process: str, *, json: bool = False, level: str = "INFO") -> None:
    """Set up logging for this process; its name is on each line as ``process``. Safe to call again.

    Everything goes to stderr, also what libraries log through the standard library; ``json`` writes one JSON object
    a line (for a log collector), else a line for people, with colour only on a terminal.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_process(process),
        redact,
    ]
    # Locals of a traceback hold patients and keys: exceptions are rendered without them.
    last: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
        if json
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    # These write addresses with their query, which for a presigned address is a secret, at INFO.
    for noisy in ("httpx", "httpcore", "urllib3"):
        logging.getLogger(noisy).setLevel(max(number, logging.WARNING))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _add_process(process: str) -> Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    return add


def _redacted(value: Any, depth: int) -> Any:  # a log field may be anything
    if depth >= _DEEPEST:
        return REDACTED
    if isinstance(value, Mapping):
        clean: MutableMapping[Any, Any] = {}
        for field, inner in value.items():
            clean[field] = REDACTED if is_sensitive(str(field)) else _redacted(inner, depth + 1)
        return clean
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_redacted(inner, depth + 1) for inner in value]
    return value
