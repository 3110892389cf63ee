"""Output shared by several commands: tables, incident texts, budgets, progress and logs."""
