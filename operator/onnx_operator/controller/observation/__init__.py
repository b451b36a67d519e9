"""What the Deployment and its pods tell."""
