"""One step on one array: optimizer x size x dtype."""

from fastopt._bench import measure

from .common import DTYPES, OPTIMIZERS, SIZES, optimizer


class Step:
    """A bound step, and what it makes of the machine's memory."""

    params = (OPTIMIZERS, SIZES, DTYPES)
    param_names = ("optimizer", "size", "dtype")

    def setup(self, name, size, dtype):
        self.opt, _ = optimizer(name, size, dtype)
        (group,) = self.opt._groups
        self.stream = measure.streaming(self.opt)
        self.stream()
        self.bytes = measure.bytes_of(group.codecs).moved * size

    def time_step(self, name, size, dtype):
        self.opt.step()

    def track_bandwidth(self, name, size, dtype):
        return self.bytes / self._medians()["step"] / 1e9

    track_bandwidth.unit = "GB/s"

    def track_roofline(self, name, size, dtype):
        """A kernel that only moves the same bytes, measured in turn: its time over that of a step."""
        took = self._medians()
        return took["stream"] / took["step"]

    track_roofline.unit = "fraction of streaming"

    def _medians(self):
        return measure.medians({"step": self.opt.step, "stream": self.stream}, 200, 1.0)
