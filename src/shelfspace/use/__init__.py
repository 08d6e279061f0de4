"""A finished run in use: opened (`runs`), asked for customers it never saw (`histories`), handed to other tools (`exports`), and
served over HTTP (`service`).

May import: the rooms before it, up to `trials`.
"""
