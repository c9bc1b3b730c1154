"""Tests of server.hospitals."""
