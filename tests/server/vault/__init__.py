"""Tests of server.vault."""
