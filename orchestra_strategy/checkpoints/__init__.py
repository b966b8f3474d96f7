"""A training on disk: files, what a party and the driver write, and who may use a folder."""
