"""Services and tasks of a Docker Swarm."""
