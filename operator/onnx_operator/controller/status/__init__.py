"""What a model's owner is told: conditions, events, facts of a good start."""
