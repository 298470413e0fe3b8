"""Searching for schedules: a driver that spends the time limit on starts and on improving them."""
