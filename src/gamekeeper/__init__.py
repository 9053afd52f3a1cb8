"""Gamekeeper keeps a self-improvement loop turning on machines that cannot be trusted."""

__version__ = "0.1.0"
