"""Pydantic contracts and catalogues that the centre and the nodes both sign; imports nobody."""
