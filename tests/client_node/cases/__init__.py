"""Tests of the node's side of a case."""
