"""The server alone: checks what the parties sent, and combines it."""
