"""From images to a smear's differential and flags."""
