"""What a model is: where its bytes come from, and what is in them. Knows nothing of Kubernetes or serving."""
