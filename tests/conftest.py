"""What all suites share: the real servers of the kit, and how hypothesis runs."""

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ("tests.kit.servers.fixtures",)

# Machines are shared: how long an example took says nothing, and what failed must be found again.
settings.register_profile("envbridge", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("envbridge")

collect_ignore = ["example_plugin"]
"""A package of its own, with its own configuration; `e2e/test_example_plugin.py` installs it and runs its tests."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers (``--dist loadgroup``) a file stays on one, and all that need the Swarm: a machine has only one."""
    with_swarm = {item.path for item in items if "swarm" in getattr(item, "fixturenames", ())}
    for item in items:
        item.add_marker(pytest.mark.xdist_group("swarm" if item.path in with_swarm else item.path.stem))
