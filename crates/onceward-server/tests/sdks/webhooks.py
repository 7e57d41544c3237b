"""The official library of Standard Webhooks: signs or verifies what it is told on its input, one
JSON document a line."""

import base64
import json
import sys
from datetime import datetime, timezone

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


def told(asked):
    webhook = Webhook(asked["secret"])
    body = base64.b64decode(asked["body"]).decode()
    if asked["do"] == "sign":
        at = datetime.fromtimestamp(asked["timestamp"], tz=timezone.utc)
        return {"signature": webhook.sign(asked["id"], at, body)}
    try:
        webhook.verify(body, asked["headers"])
        return {"verified": True}
    except WebhookVerificationError as error:
        return {"verified": False, "why": str(error)}


for line in sys.stdin:
    print(json.dumps(told(json.loads(line))), flush=True)
