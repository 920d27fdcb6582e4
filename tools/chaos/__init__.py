"""
Fault injection: writers on a local Lakebase, faults, and a check for consistency.

How it works. Writer processes insert rows through the ORM and record each operation and
its outcome in a history. A schedule drawn from a seed injects faults meanwhile.
Afterwards a checker compares the histories with the table, each error with the faults
that were active, and each wait with the connect budget.
"""
