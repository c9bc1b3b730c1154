"""Model versions: artefacts, cards, gate, promotion."""
