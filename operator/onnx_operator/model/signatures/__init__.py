"""OpenSSF model signatures: who signed, and which digests."""
