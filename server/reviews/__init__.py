"""Reading: labels, history, sign-out."""
