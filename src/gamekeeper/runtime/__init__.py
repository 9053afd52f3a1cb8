"""What runs the control plane: daemons, their supervision, the one executor, and the log."""
