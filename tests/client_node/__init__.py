"""Tests of what a hospital installs."""
