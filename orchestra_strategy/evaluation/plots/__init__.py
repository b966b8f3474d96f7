"""Pictures of results; numbers are made elsewhere."""
