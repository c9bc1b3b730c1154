"""Ingest and life cycle of cases."""
