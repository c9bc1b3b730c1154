"""Questions to colleagues about a case, and the letters that tell of them."""
