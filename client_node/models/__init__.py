"""Promoted models on a node: fetched, verified, tried, installed or held, rolled back. No torch outside the trial."""
