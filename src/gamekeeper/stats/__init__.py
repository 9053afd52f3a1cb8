"""The mathematics of strength: sequential tests and ratings. Standard library only."""
