"""``make bench-federation``: what learning together is worth, and what it costs."""
