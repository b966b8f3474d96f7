"""What runs where the parties' payloads are combined."""
