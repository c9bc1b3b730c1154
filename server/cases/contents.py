"""What images a case has, by name: read from its manifest once, not once an image.

A manifest lists every cell's picture. Reading it takes longer than decrypting one, and a page asks for hundreds.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final
from weakref import WeakKeyDictionary

from server.models import Case
from server.vault.port import Vault
from shared.contracts.case import Blob, SignedManifest

_KEPT: Final = 256


class Contents:
    """Least recently used lists of cases' images. A name stands for the same bytes for ever, so none grows wrong."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lists: OrderedDict[tuple[str, str], Mapping[str, Blob]] = OrderedDict()

    def listed(self, case: Case, *, anew: bool = False) -> Mapping[str, Blob]:
        """Return name → image; ``anew``: read the manifest again, which may have grown."""
        place = (case.hospital_id, case.id)
        with self._lock:
            if not anew and place in self._lists:
                self._lists.move_to_end(place)
                return self._lists[place]
        found = {blob.name: blob for blob in SignedManifest.model_validate(case.manifest).manifest.blobs}
        with self._lock:
            self._lists[place] = found
            while len(self._lists) > _KEPT:
                self._lists.popitem(last=False)
        return found


_contents: WeakKeyDictionary[Vault, Contents] = WeakKeyDictionary()
_contents_lock = threading.Lock()


def contents_of(vault: Vault) -> Contents:
    """Return the lists that belong to a vault; they go when the vault does."""
    with _contents_lock:
        return _contents.setdefault(vault, Contents())
