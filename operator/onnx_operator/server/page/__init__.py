"""The page at ``/``: try the model, see its graph. Nothing of it comes from elsewhere."""
