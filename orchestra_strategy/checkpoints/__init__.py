"""A training on disk: a party's files, the driver who keeps them in step, who may use a folder."""
