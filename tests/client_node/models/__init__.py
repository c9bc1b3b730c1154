"""Tests of promoted models on a node."""
