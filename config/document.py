"""Reading of the YAML file as plain values, with the line of each key."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from config.errors import ConfigError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Nested values, and the origin of each key: `places` maps a key path to a file line or another origin."""

    values: dict[str, Any]
    places: dict[KeyPath, str] = field(default_factory=dict)


_MAX_DEPTH = 32
_MAX_VALUES = 100_000
_TOO_DEEP = f"is nested deeper than {_MAX_DEPTH} levels; the settings need fewer than ten"
_TOO_MANY = f"has more than {_MAX_VALUES:,} values with its anchors written out; write fewer or no anchors"


class _Loader(yaml.SafeLoader):
    """A YAML 1.1 loader without its pitfalls: `on`, `no`, 1:30 and times are texts. Depth and merges are bounded."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - the form that yaml requires

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._merged_pairs = 0
        self._flattening: set[int] = set()

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node.

        Raises:
            ComposerError: The node is nested too deep.
        """
        if self._depth > _MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, _TOO_DEEP, self.peek_event().start_mark)  # type: ignore[no-untyped-call]  # the stubs leave it untyped
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Replace the merge keys of a mapping by the pairs of the merged mappings.

        Raises:
            ConstructorError: The mappings are nested or have too many pairs in total.
        """
        # A mapping that merges itself, directly or through others, is cut there.
        if id(node) in self._flattening:
            return
        self._flattening.add(id(node))
        try:
            for merged in self._merged_mappings(node):
                self.flatten_mapping(merged)
                self._merged_pairs += len(merged.value)
                if self._merged_pairs > _MAX_VALUES:
                    raise yaml.constructor.ConstructorError(None, None, _TOO_MANY, node.start_mark)
            super().flatten_mapping(node)
        finally:
            self._flattening.discard(id(node))

    @staticmethod
    def _merged_mappings(node: yaml.MappingNode) -> Iterator[yaml.MappingNode]:
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                entries = value.value if isinstance(value, yaml.SequenceNode) else [value]
                yield from (entry for entry in entries if isinstance(entry, yaml.MappingNode))


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$", re.IGNORECASE), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?)$"),
    list("-+0123456789."),
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])


def read_document(path: Path) -> Document:
    """Read a configuration file.

    Raises:
        ConfigError: The file is missing, unreadable, not YAML, has a duplicate key, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: there is no such file; name one with --config, or let `outrider init` write one from your events"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; name a file with --config") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    return parse_document(text, str(path))


def parse_document(text: str, name: str) -> Document:
    """Parse configuration text. `name` is the name of the text in errors.

    Raises:
        ConfigError: As `read_document`.
    """
    try:
        return _DocumentReader(name).read(_Loader(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        if error.problem in {_TOO_DEEP, _TOO_MANY}:
            raise ConfigError(f"{place}: {error.problem}") from error
        raise ConfigError(f"{place}: is not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: is not YAML: {str(error).splitlines()[0]}") from error


class _DocumentReader:
    """A reader of the YAML nodes of a file, which collects places and problems in one pass."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.places: dict[KeyPath, str] = {(): name}
        self.problems: list[str] = []
        self._n_values = 0

    def read(self, loader: _Loader) -> Document:
        try:
            root = loader.get_single_node()
            values = {} if root is None else self._read_value(loader, root, (), ())
        finally:
            loader.dispose()
        if values is None:
            values = {}
        if not isinstance(values, dict):
            self.problems.append(f"{self.name}: must contain keys and values, such as streams: ...")
        if self.problems:
            raise ConfigError(*self.problems)
        return Document(values=values, places=self.places)

    def _read_value(self, loader: _Loader, node: yaml.Node, path: KeyPath, ancestors: tuple[yaml.Node, ...]) -> Any:
        if node in ancestors:
            place = self._place(node)
            self.problems.append(f"{place}: {format_path(path)}: the anchor refers to itself; write the value out")
            return None
        self._n_values += 1
        if self._n_values > _MAX_VALUES:
            raise yaml.constructor.ConstructorError(None, None, _TOO_MANY, node.start_mark)
        if len(ancestors) > _MAX_DEPTH:
            raise yaml.constructor.ConstructorError(None, None, _TOO_DEEP, node.start_mark)
        nodes = (*ancestors, node)
        if isinstance(node, yaml.MappingNode):
            return self._read_mapping(loader, node, path, nodes)
        if isinstance(node, yaml.SequenceNode):
            entries = []
            for index, entry in enumerate(node.value):
                self.places[*path, index] = self._place(entry)
                entries.append(self._read_value(loader, entry, (*path, index), nodes))
            return entries
        return self._read_scalar(loader, node, path)

    def _read_scalar(self, loader: _Loader, node: yaml.Node, path: KeyPath) -> Any:
        try:
            return loader.construct_object(node)
        except (ValueError, LookupError, AttributeError) as error:  # yaml does not check the text of an explicit tag
            kind = node.tag.rpartition(":")[2]
            self.problems.append(f"{self._place(node)}: {format_path(path)}: is not a {kind} of YAML: {error}")
            return None

    def _read_mapping(
        self, loader: _Loader, node: yaml.MappingNode, path: KeyPath, nodes: tuple[yaml.Node, ...]
    ) -> dict[str, Any]:
        self._check_duplicate_keys(node, path)
        loader.flatten_mapping(node)
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = self._place(key_node)
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or not isinstance(loader.construct_object(key_node), str):
                key_text = key if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                self.problems.append(
                    f"{place}: {format_path((*path, key_text))}: a key must be a text; put it between quotes"
                )
                continue
            self.places[*path, key] = place
            values[key] = self._read_value(loader, value_node, (*path, key), nodes)
        return values

    def _check_duplicate_keys(self, node: yaml.MappingNode, path: KeyPath) -> None:
        first: dict[str, yaml.Node] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag.endswith(":merge"):
                continue
            if key_node.value in first:
                line = first[key_node.value].start_mark.line + 1
                key = format_path((*path, key_node.value))
                self.problems.append(
                    f"{self._place(key_node)}: {key}: is a duplicate key, first on line {line}; leave one out"
                )
            first.setdefault(key_node.value, key_node)

    def _place(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"


def format_path(path: KeyPath) -> str:
    """Format a key path, such as streams.payments.window.size or notify.routes[0]."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "the configuration"
