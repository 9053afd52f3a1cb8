"""The state of the fleet: tables, one writer, and functions on a transaction."""
