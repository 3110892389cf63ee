"""Notifications: telling people what the control plane has put into the outbox.

An incident and the rows that say whom to tell are stored in one transaction; telling comes after it. So nothing is
lost when the process dies in between, and a message that is told twice carries the same id.
"""
