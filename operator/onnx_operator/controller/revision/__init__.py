"""What pods are made of: rendered from spec, inspection and settings, and sealed."""
