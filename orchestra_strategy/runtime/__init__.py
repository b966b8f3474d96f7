"""Starting SecretFlow, training over it, and what a person sees meanwhile."""
