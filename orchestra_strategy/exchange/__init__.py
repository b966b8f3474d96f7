"""What travels between parties and server: its list, its forms, its checks; no decisions."""
