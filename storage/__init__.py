"""What is kept: tables, the ledger, the control store, history."""
