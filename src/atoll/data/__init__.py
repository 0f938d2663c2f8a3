"""Files that persons send for their jobs."""
