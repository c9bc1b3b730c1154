"""The one place where private keys open."""
