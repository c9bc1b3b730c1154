"""What a hospital's node may learn from: catalogue, importers, synthetic smears, splits."""
