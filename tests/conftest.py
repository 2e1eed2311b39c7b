"""What all suites share: the real servers of the kit, and how hypothesis runs."""

from hypothesis import HealthCheck, settings

pytest_plugins = ("tests.kit.servers.fixtures",)

# Machines are shared: how long an example took says nothing, and what failed must be found again.
settings.register_profile("envbridge", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("envbridge")

collect_ignore = ["example_plugin"]
"""A package of its own, with its own configuration; `e2e/test_example_plugin.py` installs it and runs its tests."""
