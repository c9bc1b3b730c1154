"""Envelope encryption, signatures and the demonstration CA."""
