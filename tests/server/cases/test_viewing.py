"""The images of a case: what they are, whose they are, and what is done with one that is missing or was changed."""

import pytest

from server.cases import viewing
from shared.contracts.errors import DataInvalidError, NotFoundError
from shared.contracts.ontology import CellClass
from tests.factories import cell_image
from tests.server.conftest import Ward


def test_blob_gives_the_plain_image_of_the_case_only(ward: Ward) -> None:
    runtime = ward.centre.runtime
    with runtime.database.session() as session:
        content, media_type = viewing.blob(session, runtime, ward.reader, ward.case_id, "cell-c1.png")
        assert (content, media_type) == (cell_image(CellClass.NEUTROPHIL), "image/png")
        for name in ("body-json", "cell-c999.png", "../key.json"):
            with pytest.raises(NotFoundError):
                viewing.blob(session, runtime, ward.reader, ward.case_id, name)


def test_blob_changed_in_the_store_after_ingest_is_refused(ward: Ward) -> None:
    ward.centre.store.put(f"{ward.parcel.prefix}/blobs/cell-c1.png", ward.parcel.objects["blobs/cell-c2.png"])
    with ward.centre.runtime.database.session() as session, pytest.raises(DataInvalidError):
        viewing.blob(session, ward.centre.runtime, ward.reader, ward.case_id, "cell-c1.png")


def test_images_of_another_hospitals_case_are_not_found(ward: Ward) -> None:
    runtime = ward.centre.runtime
    with runtime.database.session() as session:
        with pytest.raises(NotFoundError):
            viewing.blob(session, runtime, ward.other_it, ward.case_id, "cell-c1.png")
        with pytest.raises(NotFoundError):
            viewing.images(session, runtime, ward.other_it, ward.case_id, ["cell-c1.png"])


def test_many_images_come_in_the_order_asked_for_and_what_is_missing_is_empty(ward: Ward) -> None:
    runtime = ward.centre.runtime
    with runtime.database.session() as session:
        one, two = (
            viewing.blob(session, runtime, ward.reader, ward.case_id, name)[0]
            for name in ("cell-c1.png", "cell-c22.png")
        )
        assert one != two
        names = ["cell-c22.png", "cell-c999.png", "cell-c1.png"]
        assert viewing.images(session, runtime, ward.reader, ward.case_id, names) == [two, b"", one]
