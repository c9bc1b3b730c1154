"""The Flower ClientApp: forwards requests to the trainer's socket; no torch, no data access."""
