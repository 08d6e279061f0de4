"""From clean events to one time-ordered sequence per user, split into train, valid and test (`prepare`), and these as arrays
(`arrays`).

May import: `files` and `logs`.
"""
