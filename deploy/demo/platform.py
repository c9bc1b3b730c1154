"""The centre of the demonstration: every server it stands on, started in order, ended in reverse."""

import os
import secrets
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from deploy.demo.commands import Command
from deploy.services.broker import start_broker
from deploy.services.flower import start_flower
from deploy.services.object_store import start_object_store
from shared.contracts.errors import NoSpaceError, NotFoundError
from shared.crypto.pki import DemoCA
from shared.processes import LOOPBACK, Service, Supervisor, free_port, require_port

NEEDED_BYTES = 3_000_000_000
"""Three nodes' images, caches and models, the store's volumes and the logs; generously."""
ROLES = ("hematologist", "coordinator", "hospital_it", "auditor", "admin")


@dataclass(frozen=True)
class Login:
    """One person of the demonstration, made at run time."""

    role: str
    username: str
    password: str


@dataclass
class Platform:
    """The running centre. ``say`` shows a line of progress."""

    work: Path
    supervisor: Supervisor
    say: Callable[[str], None]
    port: int
    synthetic: bool
    logins: dict[str, Login] = field(default_factory=dict)
    api_port: int = field(default_factory=free_port)

    @property
    def home(self) -> Path:
        """The centre's folder."""
        return self.work / "centre"

    @property
    def url(self) -> str:
        """Where people find the portal."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """The environment of every process of the demonstration."""
        root = str(Path(__file__).resolve().parents[2])
        programs = str(Path(sys.executable).parent)
        return {
            **os.environ,
            "PATH": os.pathsep.join([programs, os.environ.get("PATH", "")]),
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")])),
            "HEMATOVISION_SERVER_HOME": str(self.home),
            "HEMATOVISION_NODE_POLL_SECONDS": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            # One thread a process: three trainers and all servers share the cores.
            "OMP_NUM_THREADS": "1",
            # Fewer malloc arenas: threads of twenty processes would each hold on to memory they no longer use.
            "MALLOC_ARENA_MAX": "2",
        }

    @property
    def command(self) -> Command:
        """``hematovision-server`` on this centre."""
        return Command("server.cli", self.env)

    def start(self) -> None:
        """Start everything but the hospitals."""
        check_space(self.work)
        require_port(self.port)
        self.say("object store (SeaweedFS)")
        store = start_object_store(self.work, self.supervisor)
        self.say("broker (Valkey)")
        broker = start_broker(self.work, self.supervisor)
        self.say("keys, certificates and database")
        superlink = self._init(store.endpoint, store.access_key, store.secret_key, broker)
        self.say("Celery worker and beat")
        self._celery()
        self.say("SuperLink and SuperExec")
        authority = DemoCA.load(self.home / "keys" / "ca")
        certificates = authority.issue_server("superlink", [LOOPBACK], self.home / "flower" / "tls")
        start_flower(
            self.home / "flower",
            self.supervisor,
            certificates,
            server_env=self.env,
            logs=self.work / "logs",
            port=superlink,
        )
        self.say("node API and portal")
        self._web()
        self._people()

    def check(self) -> None:
        """Raise where a server has ended on its own."""
        self.supervisor.check()

    def keep(self) -> None:
        """Start again what has ended on its own, as an init system would."""
        for name in self.supervisor.revive():
            self.say(f"{name} had ended, and is started again")

    def kit(self, hospital_id: str, name: str) -> Path:
        """Make a one-time kit for a hospital."""
        kit = self.work / "kits" / f"{hospital_id}.json"
        kit.parent.mkdir(exist_ok=True)
        self.command.json("hospital", "enrol", hospital_id, "--name", name, "--out", str(kit))
        return kit

    def login(self, role: str) -> Login:
        """Return the person of a role."""
        if role not in self.logins:
            raise NotFoundError(f"The demonstration has no {role}.")
        return self.logins[role]

    def python(self, name: str, *argv: str) -> Service:
        """Return a service that runs a module of ours or a server on top of one."""
        log = self.work / "logs" / f"{name.replace(' ', '-')}.log"
        return Service(name, [sys.executable, "-m", *argv], env=self.env, cwd=self.work, log_path=log)

    def _init(self, endpoint: str, access_key: str, secret_key: str, broker: str) -> int:
        superlink = free_port()
        options = {
            "--home": str(self.home),
            "--store-endpoint": f"http://{endpoint}",
            "--store-access-key": access_key,
            "--public-url": f"https://{LOOPBACK}:{self.api_port}",
            "--superlink": f"{LOOPBACK}:{superlink}",
            "--superlink-control": f"{LOOPBACK}:{superlink}",
        }
        flags = ["--demo", "--store-secret-key-stdin"] + (["--synthetic"] if self.synthetic else [])
        # Passwords go by the environment and standard input: arguments show in the list of processes.
        command = Command(self.command.module, {**self.env, "HEMATOVISION_SERVER_BROKER_URL": broker})
        command.json("init", *(part for pair in options.items() for part in pair), *flags, stdin=secret_key)
        return superlink

    def _celery(self) -> None:
        app = ("celery", "-A", "server.worker")
        worker = (*app, "worker", "--pool", "threads", "--concurrency", "2", "--loglevel", "INFO")
        self.supervisor.start(self.python("worker", *worker))
        self.supervisor.start(self.python("beat", *app, "beat", "-s", str(self.home / "beat-schedule")))

    def _web(self) -> None:
        self.supervisor.start(
            self.python("node api", "server.cli", "serve", "--host", LOOPBACK, "--port", str(self.api_port)),
            lambda: _answers(f"https://{LOOPBACK}:{self.api_port}/healthz"),
            timeout=60,
        )
        uvicorn = ("uvicorn", "portal.main:create_app", "--factory", "--host", LOOPBACK, "--port", str(self.port))
        # Connections outlive a reader's pause: else each act after five seconds begins with a new one.
        quiet = ("--no-access-log", "--no-server-header", "--timeout-keep-alive", "75")
        portal = self.python("portal", *uvicorn, *quiet)
        self.supervisor.start(portal, lambda: _answers(f"{self.url}/healthz"), timeout=60)

    def _people(self) -> None:
        for role in ROLES:
            if role == "hospital_it":
                continue  # belongs to a hospital, which does not exist before it is enrolled
            self.add_person(role)

    def add_person(self, role: str, *, hospital_id: str | None = None) -> None:
        """Make an account with a random password."""
        names = {
            "hematologist": "Dr. Ada Reader",
            "coordinator": "Cora Coordinator",
            "hospital_it": "Ivo Infrastructure",
            "auditor": "Otto Auditor",
            "admin": "Anna Admin",
        }
        login = Login(role, role.replace("_", "-"), secrets.token_urlsafe(9))
        where = ["--hospital", hospital_id] if hospital_id else []
        arguments = ["user", "add", login.username, "--role", role, "--name", names[role], *where, "--password-stdin"]
        self.command.json(*arguments, stdin=login.password)
        self.logins[role] = login


def check_space(folder: Path) -> None:
    """Raise `NoSpaceError` unless ``folder`` has room for a whole demonstration."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise NoSpaceError(
            f"{folder} has {free / 1e9:.1f} GB free; the demonstration needs {NEEDED_BYTES / 1e9:.0f} GB. "
            "Free some space, or name another folder with --work."
        )


def _answers(url: str) -> bool:
    try:
        # Only asks whether anything answers: the certificate is checked by every node against its own CA.
        return httpx.get(url, verify=False, timeout=2).status_code < 500  # noqa: S501
    except httpx.HTTPError:
        return False
