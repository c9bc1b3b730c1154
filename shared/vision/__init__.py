"""Backbones, preprocessing, calibration and export: the only torch outside the node."""
