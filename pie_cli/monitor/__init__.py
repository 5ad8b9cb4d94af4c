"""The screen of `pie monitor`.

Snapshots come from `source`, `state` makes a `View` of each, `panels` make lines of a view, and `widgets` draw lines.
Only `widgets`, `screens` and `app` import Textual.
"""
