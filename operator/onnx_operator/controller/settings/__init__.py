"""What the platform team decides: one typed file, and the values in it."""
