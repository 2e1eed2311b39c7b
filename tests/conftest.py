"""What all suites share: the real servers of the kit."""

pytest_plugins = ("tests.kit.servers.fixtures",)
