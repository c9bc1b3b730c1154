"""One hash chain per subject, with signed checkpoints."""
