# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of the lab tests: hosts in their pristine state."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from lab import Farm, Host

# The files that take longest, longest first. They begin first: one that began last would run alone on its lane while
# the other lane has nothing left to do.
LONGEST = (
    "test_interrupted",
    "test_transaction_steps",
    "test_config",
    "test_key",
    "test_diagnose",
    "test_provision",
    "test_rotate",
    "test_shared_config",
    "test_rewrap",
    "test_dependents",
    "test_restore",
    "test_rebuild",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


@pytest.fixture
def host(farm: Farm) -> Iterator[Callable[[str], Host]]:
    """host("web2") -> that host in its pristine state; its faults end with the test."""
    used: dict[str, Host] = {}

    def get(name: str) -> Host:
        if name not in used:
            used[name] = farm.host(name)
            used[name].reset()
        return used[name]

    yield get
    for one in used.values():
        one.clear_faults()


@pytest.fixture
def web1(host: Callable[[str], Host]) -> Host:
    """The golden server."""
    return host("web1")


@pytest.fixture
def web2(host: Callable[[str], Host]) -> Host:
    """A new server with keys of its own."""
    return host("web2")


@pytest.fixture
def web3(host: Callable[[str], Host]) -> Host:
    """A server without iisWasKey."""
    return host("web3")


@pytest.fixture
def unchanged() -> Callable[..., AbstractContextManager[None]]:
    """with unchanged(web1, web2): ... asserts that files, registry, containers and services are the same afterwards."""

    @contextlib.contextmanager
    def check(*hosts: Host) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for one in hosts:
                one.wait_until_read()
                stack.enter_context(one.history_paused())
            before = [one.snapshot() for one in hosts]
            yield
            for one, state in zip(hosts, before, strict=True):
                differences = state.differences(one.snapshot())
                assert not differences, f"{one.name} changed:\n" + "\n".join(differences)

    return check
