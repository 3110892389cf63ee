"""A reader of Parquet rows as columns, with random access by the metadata of the row groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from config.errors import ConfigError
from consumers.batch import Table


class ParquetReader:
    """An open Parquet file. Requires pyarrow, which is an optional dependency."""

    def __init__(self, path: Path) -> None:
        """Open the file and read its metadata.

        Raises:
            ConfigError: pyarrow is not installed, the file is not a Parquet file, or two columns have one name.
        """
        try:
            import pyarrow as pa  # noqa: PLC0415 - an extra
            from pyarrow import parquet  # noqa: PLC0415
        except ImportError:
            raise ConfigError(
                f"source.path: {str(path)!r} needs pyarrow; install it with: pip install 'outrider[parquet]'"
            ) from None
        self._arrow = pa
        try:
            self._file = parquet.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"source.path: {str(path)!r} is not a readable Parquet file: {error}") from None
        self._refuse_repeated_names(path)
        metadata = self._file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(np.array(sizes, np.int64))]).astype(np.int64)
        self._batches: Iterator[Any] | None = None
        self._next = 0

    def _refuse_repeated_names(self, path: Path) -> None:
        """Check that each column has its own name, nested columns by their dotted names."""
        names = self._flatten(self._file.schema_arrow.empty_table()).column_names
        repeated = [name for name, n in Counter(names).items() if n > 1]
        if repeated:
            self._file.close()
            listed = ", ".join(map(repr, repeated))
            raise ConfigError(
                f"source.path: {str(path)!r} has several columns named {listed}; give every column its own name "
                "(a field of a nested column is named column.field)"
            )

    @property
    def n_rows(self) -> int:
        """The number of rows in the file."""
        return int(self._starts[-1])

    def seek(self, row: int) -> None:
        """Continue at this row."""
        self._next = row
        self._batches = None

    def read(self, max_rows: int) -> tuple[int, int, Table | None]:
        """Return the range [begin, end) and the table of its rows, or None if the row group is unreadable."""
        begin = self._next
        group = int(np.searchsorted(self._starts, begin, side="right")) - 1
        skip = 0
        if self._batches is None:
            skip = begin - int(self._starts[group])
            self._batches = self._file.iter_batches(batch_size=max_rows, row_groups=[group])
        try:
            batch = next(self._batches)
            while skip >= batch.num_rows:
                skip -= batch.num_rows
                batch = next(self._batches)
            table = self._to_table(batch.slice(skip))
        except (self._arrow.ArrowException, OSError, StopIteration):
            self.seek(int(self._starts[group + 1]))
            return begin, self._next, None
        self._next = begin + len(table)
        if self._next >= self._starts[group + 1]:
            self._batches = None
        return begin, self._next, table

    def _to_table(self, batch: Any) -> Table:
        """Convert a record batch to a table. Fields of nested columns get dotted names."""
        table = self._flatten(self._arrow.Table.from_batches([batch]))
        columns = {name: self._to_column(table.column(name)) for name in table.column_names}
        return Table(columns=columns, n_rows=table.num_rows)

    def _flatten(self, table: Any) -> Any:
        """Replace each nested column by its fields."""
        while any(self._arrow.types.is_struct(field.type) for field in table.schema):
            table = table.flatten()
        return table

    def _to_column(self, column: Any) -> Any:
        """Convert a column: numbers without nulls and times to an array, other values to a list."""
        types = self._arrow.types
        if types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        kind = column.type
        if types.is_decimal(kind):
            column = column.cast(self._arrow.float64())
        elif types.is_timestamp(kind) or types.is_date(kind):
            column = column.cast(self._arrow.timestamp("us"), safe=False)
            return column.combine_chunks().to_numpy(zero_copy_only=False)
        plain = types.is_floating(column.type) or types.is_integer(column.type)
        if plain and column.null_count == 0:
            return column.combine_chunks().to_numpy(zero_copy_only=False)
        return column.to_pylist()

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()
