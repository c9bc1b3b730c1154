"""Hospitals, kits, enrolment, nodes."""
