"""A Flower app as its PyTorch quickstart has it, to compare with: what a bundle holds beside `pyproject.toml`."""
