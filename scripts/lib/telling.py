"""What the demonstration says while it runs, and its checks: lines with the time since the start, and what did
not hold."""

import time

from rig import Failed

began = time.monotonic()


def say(text=""):
    seconds = int(time.monotonic() - began)
    for line in str(text).splitlines() or [""]:
        print(f"[{seconds // 60:2d}:{seconds % 60:02d}] {line}", flush=True)


def title(text):
    say()
    say(f"== {text}")


def framed(lines):
    """A table of names and values, as a person reads it at the end."""
    width = max(len(name) for name, _ in lines)
    rule = "-" * 78
    return "\n".join([rule, *(f"{name:<{width}}  {value}" for name, value in lines), rule])


class Checks:
    """What was verified, and what did not hold."""

    def __init__(self):
        self.wrong = []
        self.count = 0

    def that(self, name, good, detail=""):
        self.count += 1
        say(f"   {'ok ' if good else 'NOT'}  {name}{': ' + str(detail) if detail and not good else ''}")
        if not good:
            self.wrong.append(f"{name}: {detail}" if detail else name)
        return good

    def doing(self, name, action):
        """That an action goes without an error; gives what it gives."""
        try:
            value = action()
        except (Failed, OSError, ValueError) as error:
            self.that(name, False, error)
            return None
        self.that(name, True)
        return value
