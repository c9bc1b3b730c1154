"""Services start, say when they are ready, and end with everything they started, whoever dies first."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from deploy.services.programs import program
from shared.contracts.errors import DependencyMissingError, PortInUseError, ServiceUnavailableError
from shared.processes import Service, Supervisor, free_port, free_ports, is_listening, require_port

# A program with a child in a session of its own that ignores SIGTERM, and a daemon whose parent is gone.
STUBBORN = """
import os, subprocess, sys, time
child = subprocess.Popen(
    [sys.executable, "-c",
     "from signal import *; import time; signal(SIGTERM, SIG_IGN); print(1, flush=True); time.sleep(600)"],
    start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
start_daemon = '''
import subprocess
quiet = subprocess.DEVNULL
print(subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=quiet, stderr=quiet).pid)
'''
daemon = subprocess.run([sys.executable, "-c", start_daemon], stdout=subprocess.PIPE, text=True)
print(f"pids {os.getpid()} {child.pid} {daemon.stdout.strip()}", flush=True)
time.sleep(600)
"""


def python(tmp_path: Path, code: str, name: str = "thing", grace: float = 5) -> Service:
    return Service(name, [sys.executable, "-c", code], log_path=tmp_path / "logs" / f"{name}.log", stop_grace=grace)


def pids(log: Path) -> list[int]:
    """Wait until the stubborn program has said which processes it runs."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        text = log.read_text() if log.exists() else ""
        if "pids" in text and text.endswith("\n"):
            return [int(part) for part in text.split("pids", 1)[1].split()]
        time.sleep(0.05)
    pytest.fail("it did not start")


def wait_gone(processes: list[int], seconds: float = 10) -> list[int]:
    """Return those that still run after so long (a zombie does not)."""
    deadline = time.monotonic() + seconds
    left = processes
    while time.monotonic() < deadline:
        left = [pid for pid in processes if psutil.pid_exists(pid) and not is_zombie(pid)]
        if not left:
            return []
        time.sleep(0.05)
    return left


def is_zombie(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_stop_ends_the_program_its_children_and_its_daemons(tmp_path: Path) -> None:
    service = python(tmp_path, STUBBORN).start()
    running = pids(service.log_path)
    assert len(running) == 3
    assert {process.pid for process in service.processes()} == set(running)
    service.stop()
    assert not service.alive
    assert wait_gone(running, 1) == []
    service.stop()


def test_a_program_that_ends_takes_its_children_along(tmp_path: Path) -> None:
    service = python(tmp_path, STUBBORN.replace("time.sleep(600)\n", "sys.exit(7)\n") + "sys.exit(7)").start()
    running = pids(service.log_path)
    assert service.wait(timeout=20) == 7
    assert wait_gone(running, 1) == []
    service.stop()


def test_nothing_survives_a_guard_that_is_killed(tmp_path: Path) -> None:
    service = python(tmp_path, "import time; print('pids 0', flush=True); time.sleep(600)").start()
    pids(service.log_path)
    program_pid = service.processes()[0].pid
    os.kill(service.pid, signal.SIGKILL)
    assert wait_gone([program_pid]) == []
    service.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_survives_a_launcher_that_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    code = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        from shared.processes import Service, Supervisor
        with Supervisor() as supervisor:
            supervisor.handle_signals()
            for name in ("one", "two"):
                log = Path({str(tmp_path)!r}) / f"{{name}}.log"
                argv = [sys.executable, "-c", {STUBBORN!r}]
                supervisor.start(Service(name, argv, log_path=log, stop_grace=3))
            time.sleep(600)
        """
    )
    with subprocess.Popen([sys.executable, "-c", code]) as launcher:
        try:
            running = [*pids(tmp_path / "one.log"), *pids(tmp_path / "two.log")]
            launcher.send_signal(number)
            status = launcher.wait(timeout=20)
        finally:
            launcher.kill()
    assert wait_gone(running) == []
    assert status == (-signal.SIGKILL if number == signal.SIGKILL else 130)


def test_kill_ends_all_at_once(tmp_path: Path) -> None:
    service = python(tmp_path, STUBBORN, grace=60).start()
    running = pids(service.log_path)
    service.kill()
    assert wait_gone(running, 2) == []
    assert service.start().alive
    service.stop()


def test_stop_lets_a_program_end_by_itself(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "def end(*_): print('tidy', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('pids 0', flush=True); time.sleep(600)"
    )
    service = python(tmp_path, code).start()
    pids(service.log_path)
    service.stop()
    assert service.tail().endswith("tidy")
    assert service.returncode == 0


def test_wait_ready_tells_what_a_dead_program_said(tmp_path: Path) -> None:
    service = python(tmp_path, "import sys; print('the reason'); sys.exit(3)").start()
    with pytest.raises(ServiceUnavailableError, match=r"(?s)ended with status 3.*the reason"):
        service.wait_ready(lambda: False, timeout=20)
    service.stop()


def test_wait_ready_gives_up(tmp_path: Path) -> None:
    with Supervisor() as supervisor:
        service = python(tmp_path, "import time; time.sleep(600)", "slow")
        with pytest.raises(ServiceUnavailableError, match="slow is not ready after"):
            supervisor.start(service, lambda: False, timeout=0.2)
        assert not service.alive
        assert supervisor.services == []


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    service = Service("none", ["/no/such/program"], log_path=tmp_path / "none.log").start()
    assert service.wait(timeout=10) == 127
    assert "No such file" in service.tail()
    service.stop()


def test_supervisor_stops_in_reverse_and_notices_a_death(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\nfrom pathlib import Path\n"
        f"def end(*_): open({str(tmp_path / 'order')!r}, 'a').write(sys.argv[1] + ' '); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('pids 0', flush=True); time.sleep(600)"
    )
    with Supervisor() as supervisor:
        for name in ("a", "b", "c"):
            argv = [sys.executable, "-c", code, name]
            supervisor.start(Service(name, argv, log_path=tmp_path / f"{name}.log"))
            pids(tmp_path / f"{name}.log")
        supervisor.check()
        supervisor.services[1].kill()
        with pytest.raises(ServiceUnavailableError, match="b ended with status"):
            supervisor.check()
    assert (tmp_path / "order").read_text().split() == ["c", "a"]


def test_cleanup_files_are_removed(tmp_path: Path) -> None:
    left = tmp_path / "left.sock"
    left.touch()
    log = tmp_path / "x.log"
    service = Service("x", [sys.executable, "-c", "pass"], log_path=log, cleanup=[left]).start()
    service.wait(timeout=10)
    assert not left.exists()
    service.stop()


def test_log_is_private(tmp_path: Path) -> None:
    service = python(tmp_path, "pass").start()
    assert service.log_path.stat().st_mode & 0o777 == 0o600
    service.wait(timeout=10)
    service.stop()


def test_ports() -> None:
    assert len(set(free_ports(5))) == 5
    port = free_port()
    assert require_port(port) == port
    assert not is_listening(port)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert is_listening(port)
        with pytest.raises(PortInUseError, match=str(port)):
            require_port(port)


def test_program_names_what_to_install() -> None:
    assert program("python", "python").is_file()
    with pytest.raises(DependencyMissingError, match="pip install some-package"):
        program("no-such-program-hv", "some-package")


def test_what_ended_on_its_own_is_started_again_less_and_less_often(tmp_path: Path) -> None:
    with Supervisor() as supervisor:
        steady = supervisor.start(Service("steady", ["sleep", "60"], log_path=tmp_path / "steady"))
        brief = supervisor.start(Service("brief", ["true"], log_path=tmp_path / "brief"))
        brief.wait(10)
        assert supervisor.revive() == ["brief"]
        brief.wait(10)
        assert supervisor.revive() == []  # not at once again
        steady.kill()
        assert supervisor.revive() == ["steady"]
        assert steady.alive
