"""Gradients of single examples, clipped: a slow loop, and the faster ways to the same sum."""
