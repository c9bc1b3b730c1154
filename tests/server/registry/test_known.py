"""The centre lets no hospital's summary make every stain known, and tells nobody whose a summary is."""

import numpy as np

from server.registry.known import known_laboratories
from shared.contracts.laboratory import MOST_LABORATORIES, Gamut, KnownLaboratory
from shared.vision.known import known_space

SIZE = 24


def told(seed: int, *, reach: float = 1.0, size: int = SIZE) -> KnownLaboratory:
    cells = np.random.default_rng(seed).normal(seed, reach, (80, size)).astype(np.float32)
    return KnownLaboratory(space=known_space(cells))


def test_sound_laboratories_are_kept_in_an_order_that_names_nobody() -> None:
    some = [told(seed) for seed in range(5)]
    found = known_laboratories([*some, None], features=SIZE)
    assert set(found.laboratories) == set(some)
    assert found == known_laboratories(reversed(some), features=SIZE)


def test_a_laboratory_that_would_know_everything_is_left_out() -> None:
    north, south, boundless = told(1), told(2), told(3, reach=50.0)
    assert boundless not in known_laboratories([north, boundless], features=SIZE).laboratories
    assert set(known_laboratories([north, boundless, south], features=SIZE).laboratories) == {north, south}
    loose = north.space
    assert loose is not None
    lax = KnownLaboratory(space=loose.model_copy(update={"threshold": 90.0}))
    assert known_laboratories([south, lax], features=SIZE).laboratories == (south,)


def test_a_laboratory_that_knows_nearly_every_colour_is_left_out() -> None:
    good = KnownLaboratory(space=told(1).space, gamut=Gamut(bins="0f" * 40 + "00" * 56, limit=0.05))
    lax = KnownLaboratory(space=told(2).space, gamut=Gamut(bins="ff" * 96, limit=0.05))
    assert known_laboratories([good, lax], features=SIZE).laboratories == (good,)


def test_a_laboratory_for_which_any_strength_of_dye_would_do_is_left_out() -> None:
    good, lax, turned = (
        KnownLaboratory(space=told(seed).space, dye_of_fields=dye)
        for seed, dye in ((1, (0.8, 1.4)), (2, (0.1, 5.0)), (3, (1.4, 0.8)))
    )
    assert known_laboratories([good, lax, turned], features=SIZE).laboratories == (good,)


def test_a_space_of_another_model_or_without_numbers_is_left_out() -> None:
    good = told(1)
    assert good.space is not None
    broken = good.space.model_copy(update={"numbers": "AH4A" * (len(good.space.numbers) // 4)})
    rest = [told(2, size=SIZE + 1), KnownLaboratory(space=broken)]
    assert known_laboratories([good, *rest], features=SIZE).laboratories == (good,)


def test_a_model_carries_so_many_and_no_more() -> None:
    many = [told(seed) for seed in range(MOST_LABORATORIES + 3)]
    assert len(known_laboratories(many, features=SIZE).laboratories) == MOST_LABORATORIES
