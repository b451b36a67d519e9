"""From a file far away to a structure without weights: ranges, the wire format, and what stands in for weights."""
