"""What moves: sources in, partitions out, and the disk that remembers both. Everything here follows a catalog or feeds one."""
