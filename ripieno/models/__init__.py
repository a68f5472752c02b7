"""Networks: the residual family of the paper, or a user's own.

`build` imports torch; `resnet_config` is pure Python, so that searches and selections can estimate the cost of a
configuration without it.
"""
