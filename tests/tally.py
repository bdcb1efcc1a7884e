# SPDX-License-Identifier: MIT
"""A pytest plugin, for the command that starts a run: bounds its time, and counts its tests for the closing line."""

import time
from pathlib import Path

import pytest


def pytest_addoption(parser):
    parser.addoption("--deadline", metavar="TIME", type=int, default=0, help="skip what begins later than TIME, in seconds since 1970; 0: never")
    parser.addoption("--tally", metavar="FILE", help="add the numbers of passed, failed and skipped tests to FILE")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    deadline = item.config.getoption("deadline")
    if deadline and time.time() > deadline:
        pytest.skip("the time of MYDRV_TEST_MINUTES is over")


def pytest_terminal_summary(terminalreporter, config):
    path = config.getoption("tally")
    if path:
        count = {kind: len(terminalreporter.stats.get(kind, ())) for kind in ("passed", "failed", "error", "skipped")}
        with Path(path).open("a") as tally:
            print(count["passed"], count["failed"] + count["error"], count["skipped"], file=tally)
