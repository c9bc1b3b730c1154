"""What the pages of rounds, models, nodes, people and audit show at their fullest, made through the real services."""

from pathlib import Path

from server.accounts.roles import Role
from tests.portal.factories import (
    Network,
    add_hospital,
    add_waiting_node,
    play_round,
    promote_and_install,
    register_model,
    staffed,
    start_run,
)


def seed_network(folder: Path) -> Network:
    """Return a centre whose three hospitals have played, whose first model is in use and whose fourth node waits."""
    network = staffed(folder)
    for hospital in "abc":
        add_hospital(network, hospital)
    add_waiting_node(network)
    centre = network.centre
    network.people["it"] = centre.add_person("it-a", Role.HOSPITAL_IT, "a", name="K. Brandt")
    return network


def seed_finished_run(network: Network, version: str, *, accuracy: float = 0.93, before: float | None = None) -> str:
    """Play three rounds, register their candidate, and return the run's id."""
    book = start_run(network)
    play_round(network, book, 1)
    play_round(network, book, 2, missing="c")
    play_round(network, book, 3)
    register_model(network, book, version, accuracy=accuracy, before=before)
    return book.run_id


def seed_run(network: Network) -> str:
    """Leave a run in the middle of its third round of five, and return its id."""
    book = start_run(network, rounds=5)
    play_round(network, book, 1)
    play_round(network, book, 2)
    play_round(network, book, 3, open_end=True)
    return book.run_id


def seed_coordinator_pages(folder: Path) -> tuple[Network, str, str]:
    """Return a centre at its fullest, the id of its run under way and that of the run before."""
    network = seed_network(folder)
    seed_finished_run(network, "hv-2026-11-20-1")
    promote_and_install(network, "hv-2026-11-20-1")
    ended = seed_finished_run(network, "hv-2026-11-22-1", accuracy=0.86, before=0.9)
    return network, seed_run(network), ended
