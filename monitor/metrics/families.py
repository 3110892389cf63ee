"""Families of metrics as lines of text, which the format of Prometheus and OpenMetrics share except for the headings.

The lines are written directly: an object for each sample of `prometheus_client`, and a second pass over all of them for
the second format, took 13 times as long with 500 streams. Its parsers and writers check the result in the tests.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client.utils import floatToGoString

_write_number: Callable[[float], str] = floatToGoString
_TEXT_KINDS = {"info": "gauge", "stateset": "gauge"}
_TEXT_SUFFIXES = {"info": "_info", "counter": "_total"}


class Family:
    """One family of metrics: its headings and the lines of its samples.

    Args:
        kind: `counter`, `gauge`, `histogram`, `info` or `stateset`.
        name: The name without the suffix of the kind.
        text: The help text, one line.
        labels: The names of the labels of every sample.
    """

    def __init__(self, kind: str, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self._kind, self._name, self._text, self._labels = kind, name, text, tuple(labels)
        self._lines: list[str] = []

    def add(self, values: Sequence[str], number: float) -> None:
        """Add a sample of a counter or gauge; `values` are those of the labels."""
        suffix = "_total" if self._kind == "counter" else ""
        self._lines.append(f"{self._name}{suffix}{_write_labels(self._pair(values))} {_write_number(number)}\n")

    def add_info(self, values: Sequence[str], facts: Mapping[str, str]) -> None:
        """Add a sample whose facts are labels."""
        self._lines.append(f"{self._name}_info{_write_labels([*self._pair(values), *facts.items()])} 1.0\n")

    def add_states(self, values: Sequence[str], states: Iterable[str], present: str) -> None:
        """Add a sample for each state, 1 for the present one."""
        for state in sorted(states):
            labels = _write_labels([*self._pair(values), (self._name, state)])
            self._lines.append(f"{self._name}{labels} {'1.0' if state == present else '0.0'}\n")

    def add_histogram(self, values: Sequence[str], buckets: Sequence[tuple[str, float]], total: float) -> None:
        """Add the buckets, the number and the sum of observations.

        Args:
            values: The values of the labels.
            buckets: Upper bound as text, and the number of observations up to it; the last bound is `+Inf`.
            total: The sum of the observations.
        """
        pairs, name = sorted(self._pair(values)), self._name
        before = "".join(f'{label}="{_escape(value)}",' for label, value in pairs if label < "le")
        after = "".join(f',{label}="{_escape(value)}"' for label, value in pairs if label > "le")
        start, end = f'{name}_bucket{{{before}le="', f'"{after}}} '
        self._lines += [f"{start}{bound}{end}{_write_number(number)}\n" for bound, number in buckets]
        labels = _write_labels(pairs)
        self._lines.append(f"{name}_count{labels} {_write_number(buckets[-1][1])}\n")
        self._lines.append(f"{name}_sum{labels} {_write_number(total)}\n")

    def write(self) -> tuple[bytes, bytes, bytes]:
        """Return the heading in the format of Prometheus, the heading in OpenMetrics, and the lines."""
        kind, help_text = self._kind, self._text.replace("\\", r"\\").replace("\n", r"\n")
        name = self._name + _TEXT_SUFFIXES.get(kind, "")
        heading = f"# HELP {name} {help_text}\n# TYPE {name} {_TEXT_KINDS.get(kind, kind)}\n"
        open_heading = f"# HELP {self._name} {_escape(self._text)}\n# TYPE {self._name} {kind}\n"
        return heading.encode(), open_heading.encode(), "".join(self._lines).encode()

    def _pair(self, values: Sequence[str]) -> list[tuple[str, str]]:
        return list(zip(self._labels, values, strict=True))


def _write_labels(pairs: Sequence[tuple[str, str]]) -> str:
    if not pairs:
        return ""
    return "{" + ",".join([f'{label}="{_escape(value)}"' for label, value in sorted(pairs)]) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
