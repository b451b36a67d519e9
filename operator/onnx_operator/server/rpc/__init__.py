"""The Open Inference Protocol over gRPC."""

import os

# Its core tells of every handshake that fails, in a form of its own, and any caller can fail as often as they like.
# Read when it is imported, which no process of a scoring script does by way of us.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
