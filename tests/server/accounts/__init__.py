"""Tests of server.accounts."""
