"""What users and the parts agree on: the OnnxModel resource, its conditions, and the contract of its pods."""
