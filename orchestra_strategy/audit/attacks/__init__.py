"""Attacks, one object each, on what leaves a party; nothing here reads more than the server has."""
