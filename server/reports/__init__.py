"""Renderings of signed records and their delivery."""
