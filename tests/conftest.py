"""Fixtures of all tests: a state directory of their own, so that a test run never touches the user's."""

import os
import sys

import pytest


@pytest.fixture(scope="session", autouse=True)
def state_directory(tmp_path_factory):
    """One state directory for the whole run: what is compiled once serves every test."""
    directory = tmp_path_factory.mktemp("state")
    before = os.environ.get("ANYVIRT_STATE")
    os.environ["ANYVIRT_STATE"] = str(directory)
    yield directory
    if before is None:
        del os.environ["ANYVIRT_STATE"]
    else:
        os.environ["ANYVIRT_STATE"] = before


@pytest.fixture(scope="session")
def anyvirt_command():
    """The words that start the command line of the package under test."""
    return (sys.executable, "-m", "anyvirt")
