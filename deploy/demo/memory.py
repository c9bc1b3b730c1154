"""How much memory the whole process tree held at most."""

import os
import threading

import psutil


class PeakMemory:
    """Samples the resident memory of a process and, for a ``tree``, all its descendants; use as a context manager."""

    def __init__(self, *, interval_seconds: float = 1.0, tree: bool = True) -> None:
        self._interval = interval_seconds
        self._tree = tree
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="peak-memory", daemon=True)
        self.peak_bytes = 0

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def peak_mb(self) -> float:
        """Peak so far, in 10⁶ bytes."""
        return self.peak_bytes / 1e6

    def _run(self) -> None:
        root = psutil.Process(os.getpid())
        while not self._stop.wait(self._interval):
            total = 0
            for process in [root, *(root.children(recursive=True) if self._tree else [])]:
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue  # it ended between the listing and the reading
            self.peak_bytes = max(self.peak_bytes, total)
