"""Waiting for another process."""

import pytest

from deploy.demo.waiting import wait_for
from shared.contracts.errors import ServiceUnavailableError


def test_wait_for_returns_what_it_found() -> None:
    answers = iter([None, None, "there"])
    assert wait_for(lambda: next(answers), what="It", timeout=5, every=0) == "there"


def test_wait_for_gives_up_with_a_sentence() -> None:
    with pytest.raises(ServiceUnavailableError, match="The end did not happen within 0 s"):
        wait_for(lambda: None, what="The end", timeout=0, every=0)


def test_wait_for_stops_when_a_process_has_ended() -> None:
    def ended() -> None:
        raise ServiceUnavailableError("worker ended")

    with pytest.raises(ServiceUnavailableError, match="worker ended"):
        wait_for(lambda: None, what="It", timeout=5, every=0, alive=ended)
