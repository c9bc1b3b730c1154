"""Engine, sessions and the transaction at the edge."""
