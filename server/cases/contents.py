"""What images a case has and where they lie, by name: read from its manifests once, not once an image.

A manifest lists every cell's picture. Reading it takes longer than decrypting one, and a page asks for hundreds.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final
from weakref import WeakKeyDictionary

from server.cases import bundle
from server.models import Case
from server.vault.port import Vault
from shared.contracts.case import Blob, SignedManifest
from shared.contracts.supplement import SignedSupplement

_KEPT: Final = 256
Image = tuple[Blob, str]
"""An image, and the prefix in the store below which it lies."""


class Contents:
    """Least recently used lists of cases' images. A name stands for the same bytes for ever, so none grows wrong."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lists: OrderedDict[tuple[str, str], Mapping[str, Image]] = OrderedDict()

    def listed(self, case: Case, *, anew: bool = False) -> Mapping[str, Image]:
        """Return name → image; ``anew``: read the manifests again, of which there may be more by now."""
        place = (case.hospital_id, case.id)
        with self._lock:
            if not anew and place in self._lists:
                self._lists.move_to_end(place)
                return self._lists[place]
        found = _read(case)
        with self._lock:
            self._lists[place] = found
            while len(self._lists) > _KEPT:
                self._lists.popitem(last=False)
        return found


def _read(case: Case) -> dict[str, Image]:
    own = SignedManifest.model_validate(case.manifest).manifest
    found = {blob.name: (blob, bundle.prefix(case.hospital_id, case.id)) for blob in own.blobs}
    for kept in case.supplements:
        later = SignedSupplement.model_validate(kept).manifest
        place = bundle.supplement_prefix(case.hospital_id, case.id, later.request_id)
        found = {**{blob.name: (blob, place) for blob in later.blobs}, **found}  # nothing takes an earlier one's place
    return found


_contents: WeakKeyDictionary[Vault, Contents] = WeakKeyDictionary()
_contents_lock = threading.Lock()


def contents_of(vault: Vault) -> Contents:
    """Return the lists that belong to a vault; they go when the vault does."""
    with _contents_lock:
        return _contents.setdefault(vault, Contents())
