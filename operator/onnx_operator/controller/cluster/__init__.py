"""The API server: calls, watches, the queue they fill, the lease, and names and owners that others wrote."""
