"""Reads labelled folders of several layouts into the catalogue: one bad file never stops the rest."""

from client_node.datasets.importers.service import import_source

__all__ = ["import_source"]
