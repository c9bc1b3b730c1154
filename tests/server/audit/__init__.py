"""Tests of server.audit."""
