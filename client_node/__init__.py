"""What a hospital installs."""
