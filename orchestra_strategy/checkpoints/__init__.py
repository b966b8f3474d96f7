"""A training on disk: a party's files in two phases, the driver who asks for them, who may use a folder."""
