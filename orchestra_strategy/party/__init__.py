"""The worker that FLModel starts at a party, for any strategy: data, users, privacy, reports."""
