"""Tests of `hematovision-server`: JSON, exit codes and one clear line."""

import io
import json
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from server.cli import app
from server.settings import HOME_VARIABLE, load_settings
from shared.cli import run
from shared.contracts.enrolment import Kit
from shared.contracts.errors import ExitCode


@pytest.fixture
def home(tmp_path: Path, call: "Call") -> Path:
    """A centre made by `init`, named by the environment."""
    folder = tmp_path / "centre"
    call("init", "--home", str(folder), "--public-url", "https://centre.example:8443")
    return folder


class Call:
    """Calls the command in this process, as a shell would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capture = monkeypatch, capsys
        self.error = ""

    def __call__(self, *arguments: str, status: int = 0, stdin: str = "") -> Any:  # Any: parsed JSON
        self._patch.setattr("sys.argv", ["hematovision-server", *arguments, "--json"])
        self._patch.setattr("sys.stdin", io.StringIO(stdin))
        assert run(app) == status
        said = self._capture.readouterr()
        self.error = said.err
        return json.loads(said.out) if said.out else None


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    return Call(monkeypatch, capsys)


def test_init_makes_private_keys_and_settings(home: Path) -> None:
    secrets = [path for path in home.rglob("*") if path.suffix in {".pem", ".key"} or path.name == "server.env"]
    assert sorted(path.name for path in secrets) == [
        "ca.key", "envelope.pem", "release.pem", "server.env", "server.key", "signing.pem",
    ]  # fmt: skip
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert load_settings(home).public_url == "https://centre.example:8443"


def test_init_refuses_to_overwrite(home: Path, call: Call) -> None:
    before = (home / "keys" / "signing.pem").read_bytes()
    said = call("init", "--home", str(home), status=ExitCode.CONFLICT)
    assert said["error"]["code"] == "conflict"
    assert call.error.startswith("error: ")
    assert call.error.count("\n") == 1
    assert (home / "keys" / "signing.pem").read_bytes() == before


def test_init_keeps_secrets_with_every_letter(tmp_path: Path, call: Call) -> None:
    secret = """a'b"c\\d $HOME #e"""
    call("init", "--home", str(tmp_path / "c"), "--broker-url", f"redis://:{secret}@h/0")
    assert load_settings(tmp_path / "c").broker_url.get_secret_value() == f"redis://:{secret}@h/0"


def test_init_takes_addresses_with_passwords_from_the_environment(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEMATOVISION_SERVER_BROKER_URL", "redis://:secret@h/0")
    call("init", "--home", str(tmp_path / "c"))
    monkeypatch.delenv("HEMATOVISION_SERVER_BROKER_URL")
    assert load_settings(tmp_path / "c").broker_url.get_secret_value() == "redis://:secret@h/0"


@pytest.mark.parametrize("url", ["http://centre.example", "centre.example", "ftp://x"])
def test_init_refuses_an_address_without_tls(tmp_path: Path, call: Call, url: str) -> None:
    call("init", "--home", str(tmp_path / "c"), "--public-url", url, status=ExitCode.CONFIG)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("address", ["0.0.0.0:9093", "centre.example:9093", ":9093"])
def test_init_keeps_the_control_api_on_this_machine(tmp_path: Path, call: Call, address: str) -> None:
    call("init", "--home", str(tmp_path / "c"), "--superlink-control", address, status=ExitCode.CONFIG)
    assert not (tmp_path / "c").exists()


def test_user_add_reads_the_password_from_stdin(home: Path, call: Call) -> None:
    arguments = ("user", "add", "ada", "--role", "hematologist", "--name", "Ada", "--home", str(home))
    said = call(*arguments, "--password-stdin", stdin="correct horse battery\n")
    assert (said["username"], said["role"]) == ("ada", "hematologist")
    assert "password" not in said
    assert call(*arguments, "--generate", status=ExitCode.CONFLICT)["error"]["code"] == "conflict"


def test_user_add_generates_a_password_shown_once(home: Path, call: Call) -> None:
    said = call("user", "add", "ada", "--role", "auditor", "--name", "Ada", "--generate", "--home", str(home))
    assert len(said["password"]) >= 20


def test_hospital_enrol_writes_a_private_kit_once(home: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "kit.json"
    arguments = ("hospital", "enrol", "a", "--name", "Hospital A", "--out", str(out), "--home", str(home))
    assert call(*arguments)["kit"] == str(out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert Kit.model_validate_json(out.read_bytes()).server_url == "https://centre.example:8443"
    call(*arguments, status=ExitCode.CONFLICT)
    assert call("hospital", "list", "--home", str(home))["hospitals"] == [
        {"id": "a", "name": "Hospital A", "nodes": [], "gate_tolerance": None}
    ]


def test_hospital_approve_of_an_unknown_node(home: Path, call: Call) -> None:
    said = call("hospital", "approve", "nobody", "--home", str(home), status=ExitCode.NOT_FOUND)
    assert said["error"]["code"] == "not_found"


def test_audit_verify_whole_then_broken(home: Path, tmp_path: Path, call: Call) -> None:
    call("hospital", "enrol", "a", "--name", "A", "--out", str(tmp_path / "kit.json"), "--home", str(home))
    assert call("audit", "verify", "--home", str(home))["ok"] is True
    with sqlite3.connect(home / "hematovision.sqlite") as connection:
        connection.execute("UPDATE audit_entry SET actor = 'user:other'")
    connection.close()
    said = call("audit", "verify", "--home", str(home), status=ExitCode.AUDIT_BROKEN)
    assert said["problems"] == ["hospital:a entry 1: was changed after it was written."]


def test_no_folder_is_a_clear_error(call: Call) -> None:
    assert call("hospital", "list", status=ExitCode.CONFIG)["error"]["message"].startswith("Name the server's folder")


@pytest.mark.parametrize("arguments", [("bogus",), ("hospital", "enrol"), ("user", "add", "x", "--role", "king")])
def test_wrong_use_is_2_with_one_line(call: Call, arguments: tuple[str, ...]) -> None:
    assert call(*arguments, status=ExitCode.USAGE)["error"]["code"] == "usage"
    assert call.error.count("\n") == 1


def test_user_invite_tells_the_link_and_needs_to_know_the_portal(home: Path, call: Call) -> None:
    person = ("user", "invite", "--role", "hematologist", "--name", "Dr. N. Ew", "--home", str(home))
    call(*person, status=ExitCode.USAGE)
    assert "--portal https://host" in call.error
    made = call(*person, "--portal", "https://read.example/")
    assert made["link"].startswith("https://read.example/login/invitation/")
    assert (made["display_name"], made["invited_by"]) == ("Dr. N. Ew", "command line")


def test_user_reset_second_factor_names_an_unknown_account(home: Path, call: Call) -> None:
    call("user", "reset-second-factor", "nobody", "--home", str(home), status=ExitCode.NOT_FOUND)
    assert "see `user list`" in call.error
