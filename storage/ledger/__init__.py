"""The ledger: the transactional commit of a batch, and the streams and sources that commit."""
