"""Sources: what observes a backend."""
