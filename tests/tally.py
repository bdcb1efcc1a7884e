# SPDX-License-Identifier: MIT
"""A pytest plugin: the counts of a run, for the closing line of the command that started it."""

from pathlib import Path


def pytest_addoption(parser):
    parser.addoption("--tally", metavar="FILE", help="add the numbers of passed, failed and skipped tests to FILE")


def pytest_terminal_summary(terminalreporter, config):
    path = config.getoption("tally")
    if path:
        count = {kind: len(terminalreporter.stats.get(kind, ())) for kind in ("passed", "failed", "error", "skipped")}
        with Path(path).open("a") as tally:
            print(count["passed"], count["failed"] + count["error"], count["skipped"], file=tally)
