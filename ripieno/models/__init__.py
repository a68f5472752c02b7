"""Networks: the residual family of the paper, or a user's own.

`build` imports torch; `architecture` and `cost` are pure Python, so that searches and selections can ask what a
configuration costs without it.
"""
