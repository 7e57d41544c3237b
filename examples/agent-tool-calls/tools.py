"""Tools with effects, served by the Model Context Protocol over stdio: JSON-RPC, a line for each message.

The id of a tool call comes in `_meta`, from the framework and not from the model, and names what is done.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request

GATEWAY = os.environ.get("ONCEWARD_URL", "http://127.0.0.1:7077")


def tool(path, description, **arguments):
    schema = {"type": "object", "properties": {name: {"type": kind} for name, kind in arguments.items()}}
    return path, {"description": description, "inputSchema": {**schema, "required": list(arguments)}}


TOOLS = {
    "refund": tool("/refunds", "Gives the money of an order back.", order="integer", amount="integer"),
    "send_mail": tool("/mails", "Writes to a customer.", to="string", text="string"),
}

# What the model is told where the tool did not answer: what is left to do, and never "try again", because
# the next call that it makes has another id.
ADVICE = {
    "fix-request": "The arguments are wrong.",
    "new-key": "This call was made with other arguments, or long ago.",
    "escalate": "Nobody knows whether it was done. Do not call again: hand over to a person.",
}


def call(name, arguments, call_id):
    """Once for each id: whoever makes this call again gets the answer that there was."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": call_id, "Onceward-Label": call_id}
    url = f"{GATEWAY}/to/shop{TOOLS[name][0]}"
    for pause in (0, 1, 2, 4, 8):
        time.sleep(pause)
        try:
            request = urllib.request.Request(url, json.dumps(arguments).encode(), headers)
            with urllib.request.urlopen(request, timeout=90) as answer:
                return said(answer.read().decode())
        except urllib.error.HTTPError as refusal:
            advice = refusal.headers.get("Onceward-Advice", "escalate")
            if advice in ADVICE:
                return said(f"{ADVICE[advice]} ({refusal.status})", is_error=True)
        except OSError:
            # The gateway is away, or its answer was lost; the id is the same, so asking again is safe.
            continue
    return said(ADVICE["escalate"], is_error=True)


def said(text, is_error=False):
    return {"content": [{"type": "text", "text": text}], "isError": is_error}


def answer(method, params):
    """What is answered to a request; nothing to one that there is not."""
    match method:
        case "initialize":
            about = {"name": "shop", "version": "1.0.0"}
            return {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": about}
        case "tools/list":
            return {"tools": [{"name": name, **about} for name, (_, about) in TOOLS.items()]}
        case "ping":
            return {}
        case "tools/call" if params["name"] in TOOLS:
            return call(params["name"], params["arguments"], params["_meta"]["example.com/call-id"])


if __name__ == "__main__":
    for line in sys.stdin:
        message = json.loads(line)
        # What has no id is a notification: nobody waits for an answer to it.
        if "id" in message:
            result = answer(message["method"], message.get("params", {}))
            refusal = {"error": {"code": -32601, "message": "there is no such method or tool"}}
            reply = refusal if result is None else {"result": result}
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **reply}), flush=True)
