"""The broker asks for its password, and what it has acknowledged survives a kill."""

from pathlib import Path

import pytest
import redis

from deploy.services.broker import start_broker
from shared.processes import Supervisor

pytestmark = pytest.mark.servers


def test_broker_wants_its_password(broker_url: str) -> None:
    with redis.Redis.from_url(broker_url) as client:
        assert client.ping()
    with (
        redis.Redis.from_url("redis://" + broker_url.partition("@")[2]) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_broker_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    with Supervisor() as supervisor:
        url = start_broker(tmp_path, supervisor)
        with redis.Redis.from_url(url) as client:
            client.rpush("queue", *range(500))
        supervisor.services[0].kill()
        supervisor.services.clear()
        again = start_broker(tmp_path, supervisor)
        with redis.Redis.from_url(again) as client:
            assert client.llen("queue") == 500
