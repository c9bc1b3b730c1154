"""How it is put on machines: the demonstration launcher, services, the signed Flower app."""
