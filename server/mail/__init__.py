"""Letters to people outside the portal."""
