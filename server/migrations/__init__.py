"""Schema changes, dated, applied by `server.db.migrate`."""
