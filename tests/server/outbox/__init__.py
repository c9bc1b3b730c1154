"""Tests of server.outbox."""
