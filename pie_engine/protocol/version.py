"""The version that CLI, client and daemon agree on, and its header."""

PROTOCOL_VERSION = 1
PROTOCOL_HEADER = "Pie-Protocol"
