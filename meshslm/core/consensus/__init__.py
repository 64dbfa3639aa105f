"""Agreement among a few coordinators on what must be decided once: Raft as a value machine.

`coordination` is the door; `raft` follows, votes and keeps the log, `leading` leads, `decided` is
what the log's entries do, `asking` is a member that wants something, `seats` says who has a vote.
"""
