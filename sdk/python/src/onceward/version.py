"""The version of this package; a test holds it against the manifest."""

VERSION = "0.1.0"

#: What this client calls itself.
USER_AGENT = f"onceward-python/{VERSION}"
