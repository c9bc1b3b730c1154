"""Decrypting a part of a case, in memory, for somebody who may see it."""

import re
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from server.cases import bundle
from server.cases.contents import contents_of
from server.cases.keyring import ring_of
from server.models import Case
from server.runtime import Runtime
from shared.contracts.case import Blob
from shared.contracts.errors import DataInvalidError, NotFoundError
from shared.crypto.envelope import CaseKey

MARKED_TYPE: Final = "image/png"
_AT_ONCE: Final = 4
"""Images that are fetched from the store at a time for one page: it waits for the store, not for a core."""
_MARKED: Final = re.compile(r"reader-[0-9a-f]{16}\.png")


def read(runtime: Runtime, case: Case, name: str, *, actor: str) -> tuple[bytes, str]:
    """Return the plain content and media type of a case's image."""
    return reader(runtime, case, actor=actor)(name)


def reader(runtime: Runtime, case: Case, *, actor: str) -> Callable[[str], tuple[bytes, str]]:
    """Return a function that reads many of a case's images under one lease."""
    hospital_id, case_id = case.hospital_id, case.id
    listed = contents_of(runtime.vault).listed(case)

    def read_one(name: str) -> tuple[bytes, str]:
        if _MARKED.fullmatch(name):
            return _read_marked(runtime, hospital_id, case_id, name, actor), MARKED_TYPE
        found = listed.get(name) or contents_of(runtime.vault).listed(case, anew=True).get(name)
        if found is None:
            raise NotFoundError("The case has no such image.")
        blob, place = found
        return _plain(runtime, case_id, blob, place, actor), blob.media_type

    return read_one


def read_many(runtime: Runtime, case: Case, names: Sequence[str], *, actor: str) -> list[bytes]:
    """Return the plain contents of a case's images, in the order asked for; empty where one cannot be had.

    Whoever then asks for that one by itself is told why.
    """
    if not names:
        return []
    read_one = reader(runtime, case, actor=actor)
    # The first alone: it opens the case's key, once.
    first = _or_nothing(read_one, names[0])
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [first, *pool.map(lambda name: _or_nothing(read_one, name), names[1:])]


def _or_nothing(read_one: Callable[[str], tuple[bytes, str]], name: str) -> bytes:
    try:
        return read_one(name)[0]
    except (NotFoundError, DataInvalidError):
        return b""


def keep_marked(runtime: Runtime, case: Case, plain: bytes, *, actor: str) -> str:
    """Encrypt the crop of a cell that a reader marked under the case's key, store it, and return its name.

    Erasing the case's key erases it too. It lies outside the prefix that nodes get addresses for.
    """
    name = f"reader-{secrets.token_hex(8)}.png"
    key = key_of(runtime, case, actor=actor)
    runtime.store.put(_marked_place(case.hospital_id, case.id, name), key.encrypt(name, plain), if_absent=True)
    return name


def key_of(runtime: Runtime, case: Case, *, actor: str) -> CaseKey:
    """Return the case's key on this person's own audited lease."""
    return ring_of(runtime.vault).key(
        runtime.store, runtime.vault, place=bundle.prefix(case.hospital_id, case.id), case_id=case.id, actor=actor
    )


def _marked_place(hospital_id: str, case_id: str, name: str) -> str:
    return f"{bundle.prefix(hospital_id, case_id)}/marked/{name}"


def _read_marked(runtime: Runtime, hospital_id: str, case_id: str, name: str, actor: str) -> bytes:
    key = ring_of(runtime.vault).key(
        runtime.store, runtime.vault, place=bundle.prefix(hospital_id, case_id), case_id=case_id, actor=actor
    )
    return key.decrypt(name, runtime.store.get(_marked_place(hospital_id, case_id, name), most=bundle.BLOB_LIMIT))


def _plain(runtime: Runtime, case_id: str, blob: Blob, place: str, actor: str) -> bytes:
    key = ring_of(runtime.vault).key(runtime.store, runtime.vault, place=place, case_id=case_id, actor=actor)
    try:
        cipher = runtime.store.get(f"{place}/blobs/{blob.name}", most=blob.size)
        return bundle.decrypt(key, blob, cipher)
    except (bundle.BundleRefusedError, DataInvalidError):
        raise DataInvalidError(
            "The image was changed after it was taken in; tell the centre's administrator."
        ) from None
