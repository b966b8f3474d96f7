"""The methods themselves: pure torch, no SecretFlow, no input or output."""
