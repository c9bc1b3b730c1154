"""Opened case keys, kept in memory for a short time, so that a page of cells is one lease and not a hundred."""

import threading
import time
from collections import OrderedDict
from typing import Final
from weakref import WeakKeyDictionary

from server.cases import bundle
from server.vault.port import Vault
from shared.crypto.envelope import CaseKey
from shared.storage import ObjectStore

_KEPT: Final = 256
_SECONDS: Final = 300.0


class KeyRing:
    """Least recently used keys, each bound to the person it was opened for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: OrderedDict[tuple[str, str], tuple[float, CaseKey]] = OrderedDict()

    def key(self, store: ObjectStore, vault: Vault, *, place: str, case_id: str, actor: str) -> CaseKey:
        """Return the key that lies at ``place``, by a new lease of the vault unless this actor's last one is fresh."""
        slot = (place, actor)
        with self._lock:
            known = self._keys.get(slot)
            if known is not None and time.monotonic() - known[0] < _SECONDS:
                self._keys.move_to_end(slot)
                return known[1]
        opened = bundle.open_key(store, vault, place, case_id, actor=actor)
        with self._lock:
            self._keys[slot] = (time.monotonic(), opened)
            while len(self._keys) > _KEPT:
                self._keys.popitem(last=False)
        return opened


_rings: WeakKeyDictionary[Vault, KeyRing] = WeakKeyDictionary()
_rings_lock = threading.Lock()


def ring_of(vault: Vault) -> KeyRing:
    """Return the key ring that belongs to a vault; it goes when the vault does."""
    with _rings_lock:
        return _rings.setdefault(vault, KeyRing())
