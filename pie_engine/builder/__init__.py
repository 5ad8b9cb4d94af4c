"""Programs as artifacts: what is built of them, what that says of itself, and the packages that go in.

The host builds its shared Python runtime by the same means.
"""
