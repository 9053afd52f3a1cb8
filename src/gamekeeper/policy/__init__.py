"""Policies: pure functions `decide(view, limits, now) -> Decision`.

A policy imports core and stats only. It is handed a frozen view of the state and the limits in force, and answers
with a verdict for every subject it looked at. It reads no clock, no chance, no file, and knows no other policy.
"""
