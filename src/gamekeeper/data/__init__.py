"""What touches training files: validation of untrusted archives, and files that are never half-written."""
