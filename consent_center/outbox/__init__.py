"""Withdrawal that travels: a transactional outbox, signed webhooks, and how long enforcement takes."""
