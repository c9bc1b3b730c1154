"""Local training, evaluation and calibration."""
