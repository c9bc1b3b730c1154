"""Finds the white cells of a field: proposals by colour, then a trained step that accepts, rejects and refines."""

from client_node.analysis.detection.proposals import (
    Box,
    Proposal,
    background_colour,
    detect_white_cells,
    overlap,
    propose,
    touches_edge,
)

__all__ = ["Box", "Proposal", "background_colour", "detect_white_cells", "overlap", "propose", "touches_edge"]
