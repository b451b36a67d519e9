"""The scoring pod: ``fetch`` brings the model's bytes, ``serve`` answers requests."""
