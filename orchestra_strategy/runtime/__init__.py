"""The driver's side: SecretFlow's start, training over it, and what a person sees meanwhile."""
