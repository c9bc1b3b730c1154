"""Users, passwords, sessions."""
