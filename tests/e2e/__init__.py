"""Several real processes together."""
