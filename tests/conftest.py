"""What all tests have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.browser import Browser, find_browser

# How long an example takes says more about the machine than about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Skips where there is none: not every distribution has one as a package."""
    try:
        find_browser()
    except FileNotFoundError as error:
        (pytest.fail if "CI" in os.environ else pytest.skip)(str(error))
    made = Browser(tmp_path_factory.mktemp("browser"))
    yield made
    made.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several processes (`./test.sh` has two) each folder is one process's, because its tests share servers.

    The folder that takes longest comes first, so that none of the processes is left alone with it in the end.
    """
    items.sort(key=lambda item: _folder(item) != "e2e")
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            item.add_marker(pytest.mark.xdist_group(_folder(item)))


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]
