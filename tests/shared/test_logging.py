"""A log line carries its fields, and never a secret or a patient."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from shared.logging import REDACTED, configure_logging, is_sensitive


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.mark.parametrize(
    "field",
    ["token", "access_token", "Password", "secret_key", "apiKey", "patient_id", "name", "full_name", "keys", "phone"],
)
def test_field_is_sensitive(field: str) -> None:
    assert is_sensitive(field)


@pytest.mark.parametrize("field", ["case_id", "key_id", "run_key", "monkey", "hospital_id", "filename", "keyboard"])
def test_field_is_written(field: str) -> None:
    assert not is_sensitive(field)


def test_json_line_holds_fields_and_context(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("worker", json=True, level="INFO")
    structlog.contextvars.bind_contextvars(request_id="r1")
    structlog.get_logger().info("case_ingested", case_id="HV-AAAAAAAA", sizes=[1, 2])
    line = json.loads(capsys.readouterr().err)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "case_ingested",
        "level": "info",
        "process": "worker",
        "request_id": "r1",
        "case_id": "HV-AAAAAAAA",
        "sizes": [1, 2],
    }


def test_secrets_are_redacted_at_any_depth(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("agent", json=True)
    structlog.get_logger().warning(
        "x", password="p1", context={"patient": {"a": "Ann"}, "rows": [{"token": "t1", "n": 1}]}
    )
    text = capsys.readouterr().err
    assert not any(secret in text for secret in ("p1", "Ann", "t1"))
    line = json.loads(text)
    assert line["password"] == REDACTED
    assert line["context"] == {"patient": REDACTED, "rows": [{"token": REDACTED, "n": 1}]}


def test_plain_lines_of_libraries_join_in(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("node", level="WARNING")
    logging.getLogger("some.library").warning("disk %s", "slow")
    logging.getLogger("some.library").info("quiet")
    structlog.get_logger().info("quiet too")
    text = capsys.readouterr().err
    assert "disk slow" in text
    assert "process=node" in text
    assert "quiet" not in text


def _fail_with(patient: str) -> None:
    raise ValueError(len(patient))


def test_exceptions_show_no_locals(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (True, False):
        configure_logging("node", json=as_json)
        names = ["Ann", "Example"]
        try:
            _fail_with(" ".join(names))
        except ValueError:
            structlog.get_logger().exception("failed")
        text = capsys.readouterr().err
        assert "ValueError: 11" in text
        assert "Ann Example" not in text
