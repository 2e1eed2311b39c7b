"""What holds the daemon together: the composition root, the configuration and its mistakes, the registry of plugins, periodic
jobs, and logging. Only this package knows all the others; nothing below it imports it."""
