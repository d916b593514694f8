"""A region of a device whose content says when it was written, and what it was at each snapshot."""

import random

from replay import Device

UNIT = 4096


class Patterns:
    """Writes at random places of [first, first + units) and knows each moment's content."""

    def __init__(self, device, first, units, seed):
        self.device = Device(device)
        self.first, self.units = first, units
        self.random = random.Random(seed)
        self.moments = {}

    def write_some(self, writes):
        for _ in range(writes):
            size = self.random.choice((1, 1, 1, 2, 4, 16, 17, 64))
            start = self.random.randrange(self.units - size)
            if self.random.random() < 0.05:
                self.device.discard(self.first + start, size)
            else:
                self.device.write(self.first + start, size)

    def moment(self, name):
        """Notes what is there now."""
        self.moments[name] = dict(self.device.model)

    def touched(self):
        """All units that ever held something."""
        units = set(self.device.model)
        for model in self.moments.values():
            units.update(model)
        return units

    def problems(self, device, model):
        """What differs from a moment's content on a device; what was written later must not show."""
        reader = Device(device, writable=False)
        reader.check_all({unit: model.get(unit) for unit in self.touched()})
        reader.close()
        return reader.errors

    def close(self):
        self.device.close()
