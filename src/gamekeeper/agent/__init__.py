"""The node side: claims work, owns the job processes, and ships what they make."""
