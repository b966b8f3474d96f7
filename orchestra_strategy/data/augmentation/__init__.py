"""Random views of a batch; each says whether a row's views depend on that row alone."""
