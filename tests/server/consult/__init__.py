"""Tests of questions to colleagues."""
