"""Experiments on real data, each a module with a command line."""
