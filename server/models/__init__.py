"""SQLModel tables, one file a domain."""
