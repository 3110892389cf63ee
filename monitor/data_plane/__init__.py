"""The way of a batch: polled, decoded, folded into columns, committed."""
