"""The database: engines, transactions, errors, tables, views, partitions, locks, leases, jobs and migrations."""
