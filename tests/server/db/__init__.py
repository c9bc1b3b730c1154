"""Tests of server.db."""
