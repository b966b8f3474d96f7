"""The workers that FLModel starts at the parties, and their registration."""
