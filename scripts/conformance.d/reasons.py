"""Why tests of others are not run, and why some that fail say nothing against forerun. scripts/conformance reads it.

A reason counts only where the test ended as `statuses` says and what it said holds the regular expression `said`: another failure of the
same test is a failure.
"""

from typing import NamedTuple


class Reason(NamedTuple):
    tests: str  # a regular expression for the whole name
    said: str  # and one for what the suite printed
    verdict: str  # 'not applicable', 'not ours' or 'explained'
    why: str
    statuses: tuple = ("failed",)


EXCLUDED = {}

REASONS = []
