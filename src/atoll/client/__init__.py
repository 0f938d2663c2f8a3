"""The typed client of a platform, sync and async; it knows the vocabulary and HTTP, and nothing else of Atoll."""
