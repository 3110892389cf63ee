"""Detection of the encoding, the features and the roles of fields from the first records of a stream."""
