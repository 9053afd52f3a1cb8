"""Wiring: for each daemon, which view it gathers, which policy judges it, and who applies the answer."""
