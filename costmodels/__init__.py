"""Turns a model and a machine into a problem document. Empty so far."""
