"""Fixtures that the project's own tests have too."""

from __future__ import annotations

pytest_plugins = ["two_hosts"]
