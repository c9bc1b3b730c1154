"""The demonstration launcher, without its servers."""
