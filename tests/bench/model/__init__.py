"""Measures the model: accuracy, doubt and speed."""
