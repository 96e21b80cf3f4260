"""The command line, called in this process."""

import sys

from sr_utils import cli


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["cli", *map(str, arguments)])
    cli.main()
