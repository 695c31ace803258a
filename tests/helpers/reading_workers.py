"""What workers of a pool do with a reader: a module that a spawned process can import."""

import numpy as np

BOXES = [((x, y, z), (20, 20, 20)) for x in (0, 20, 40) for y in (0, 30) for z in (0, 16)]


def sum_of(arguments):
    reader, (offset, size) = arguments
    out = np.empty((1, *size), "uint8", order="F")
    return int(reader.read(offset, size, out=out).sum(dtype=int))


class Samples:
    """What a data loader is given: made in the parent, used in its workers."""

    def __init__(self, mag):
        self.reader = mag.open_reader()
        self.reader.read(*BOXES[0])  # so that a forked worker inherits open cubes

    def __getitem__(self, number):
        return self.reader.read(*BOXES[number])


def start(samples):
    global SAMPLES
    SAMPLES = samples


def sum_of_sample(number):
    return int(SAMPLES[number].sum(dtype=int))
