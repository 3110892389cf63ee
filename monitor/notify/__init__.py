"""Delivery of notifications from the outbox to their channels.

An incident's transition and its notifications are stored in one transaction; sending follows. A process that dies in
between loses none, and a message that is sent twice has the same id.
"""
