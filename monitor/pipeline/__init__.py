"""The path of a batch: poll, decode, fold into columns, commit."""
