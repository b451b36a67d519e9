"""What every protocol shares: tensors, checks, batching and running, whatever carried the request."""
