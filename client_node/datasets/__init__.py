"""The node's labelled images: catalogue, importers, splits."""
