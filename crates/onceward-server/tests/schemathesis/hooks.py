"""What JSON Schema cannot say of a request."""

import schemathesis


@schemathesis.hook
def map_body(context, body):
    """JSON Schema calls 2.0 an integer; the gateway wants its integers without a point."""
    return whole(body)


def whole(value):
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {name: whole(item) for name, item in value.items()}
    return value
