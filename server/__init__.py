"""What the centre runs."""
