"""The local sockets of a node, and the lease."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from client_node.ipc import Header, Lease, Stop, call, clear, serve, socket_path
from shared.contracts.errors import (
    ConfigError,
    DataInvalidError,
    HematovisionError,
    PolicyRefusedError,
    ServiceUnavailableError,
)


def answer(header: Header, body: bytes) -> tuple[Header, bytes]:
    if header.get("op") == "refuse":
        raise PolicyRefusedError("Not here.")
    if header.get("op") == "crash":
        raise RuntimeError("inner detail")
    if header.get("op") == "slow":
        time.sleep(0.5)
    return {"seen": header}, body[::-1]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    path = socket_path(tmp_path, "echo")
    stop = Stop()
    thread = threading.Thread(target=serve, args=(path, answer), kwargs={"stop": stop})
    thread.start()
    while not path.exists():
        time.sleep(0.005)
    yield path
    stop.set()
    thread.join(10)
    stop.close()
    assert not thread.is_alive()
    assert not path.exists()


def test_call_carries_header_and_body_both_ways(server: Path) -> None:
    body = bytes(range(256)) * 20_000
    assert call(server, {"op": "ping"}, body) == ({"seen": {"op": "ping"}}, body[::-1])


def test_call_raises_the_error_of_the_handler(server: Path) -> None:
    with pytest.raises(PolicyRefusedError, match="Not here"):
        call(server, {"op": "refuse"})


def test_serve_survives_a_crash_and_hides_its_detail(server: Path) -> None:
    with pytest.raises(HematovisionError, match="see its log") as caught:
        call(server, {"op": "crash"})
    assert "inner" not in caught.value.message
    assert call(server, {"op": "ping"})[0]["seen"] == {"op": "ping"}


def test_call_times_out_with_a_clear_error(server: Path) -> None:
    with pytest.raises(ServiceUnavailableError, match="did not answer"):
        call(server, {"op": "slow"}, timeout=0.1)


def test_call_without_a_server_says_how_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailableError, match="hematovision-node run"):
        call(tmp_path / "trainer.sock", {"op": "ping"})


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack(">I", 1 << 31),
        struct.pack(">I", 4) + b"nope" + struct.pack(">Q", 0),
        struct.pack(">I", 2) + b"[]" + struct.pack(">Q", 0),
        struct.pack(">I", 2) + b"{}" + struct.pack(">Q", 1 << 60),
    ],
)
def test_serve_answers_a_bad_frame_with_an_error(server: Path, frame: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(5)
        peer.connect(str(server))
        peer.sendall(frame)
        assert b'"code":"data_invalid"' in peer.recv(4096)
    assert call(server, {"op": "ping"})[0]["seen"] == {"op": "ping"}


def test_serve_survives_a_peer_that_leaves(server: Path) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(server))
        peer.sendall(b"\0\0")
    assert call(server, {"op": "ping"})[0]["seen"] == {"op": "ping"}


def test_serve_refuses_a_second_process(server: Path) -> None:
    stop = Stop()
    with pytest.raises(ConfigError, match="already running"):
        serve(server, answer, stop=stop)
    stop.close()


def test_serve_takes_over_a_dead_socket(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    stop = Stop()
    thread = threading.Thread(target=serve, args=(path, answer), kwargs={"stop": stop})
    thread.start()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            call(path, {"op": "ping"})
            break
        except ServiceUnavailableError:
            time.sleep(0.01)
    stop.set()
    thread.join(5)
    stop.close()
    assert not thread.is_alive()


def test_clear_removes_what_a_killed_process_left_and_no_living_socket(server: Path, tmp_path: Path) -> None:
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(dead))
    for path in (dead, server, tmp_path / "never.sock"):
        clear(path)
    assert not dead.exists()
    assert call(server, {"op": "ping"})


def test_socket_path_of_a_deep_home_is_short(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 90)
    assert len(str(socket_path(deep, "trainer"))) < 100
    assert socket_path(deep, "trainer") != socket_path(deep / "y", "trainer")
    assert socket_path(Path("/srv/h"), "trainer") == Path("/srv/h/run/trainer.sock")


def test_lease_holds_training_still(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    assert lease.pause_point() < 0.05
    with lease.urgent(), Lease(tmp_path).urgent():
        assert lease.pause_point(longest=0.2) >= 0.2
    assert lease.pause_point() < 0.05


def test_lease_of_the_gpu_holds_only_training_on_it_still(tmp_path: Path) -> None:
    lease, calls = Lease(tmp_path), list[str]()
    with Lease(tmp_path).gpu():
        assert lease.pause_point() == 0.0
        assert lease.pause_point(gpu=True, longest=0.2, waiting=lambda: calls.append("waits")) >= 0.2
    assert calls == ["waits"]
    assert lease.pause_point(gpu=True, waiting=lambda: calls.append("waits")) == 0.0
    assert calls == ["waits"]


def test_training_on_the_gpu_has_its_turn_after_each_wait(tmp_path: Path) -> None:
    """Routine smears without end leave training half of the time; an urgent one is never made to wait for that."""
    lease = Lease(tmp_path)
    with Lease(tmp_path).gpu():
        waited = lease.pause_point(gpu=True, longest=0.3)
        assert lease.pause_point(gpu=True, longest=0.3) == 0.0
        with Lease(tmp_path).urgent():
            assert lease.pause_point(gpu=True, longest=0.1) >= 0.1
        time.sleep(waited)
        assert lease.pause_point(gpu=True, longest=0.1) >= 0.1


def test_frame_of_too_large_a_header_is_refused(server: Path) -> None:
    with pytest.raises(DataInvalidError, match="too large"):
        call(server, {"op": "x" * (17 * 1024 * 1024)})
