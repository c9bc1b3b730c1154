"""Runs over Flower: launch, watch, rounds."""
