"""The server of API and page against both databases."""
