"""How hospitals' updates become one model: one strategy a file, behind the port in `port`."""
