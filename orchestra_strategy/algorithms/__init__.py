"""The methods themselves, pure torch: no SecretFlow, no files, nothing of who is where."""
