"""Readers of a party's files, one for each kind; none runs code that a file holds."""
