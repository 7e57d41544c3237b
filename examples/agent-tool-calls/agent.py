"""An agent that can be killed at any moment: what it means to do is on disk before it is done.

python3 agent.py RUN

The model is a script, so that it runs offline; it repeats itself, as models do.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parent / "tools.py"


def model(results):
    """What the model says next, after what its tools said."""
    if results and results[-1]["isError"]:
        return {"text": "I stop here: a person has to look."}
    said = [
        {"tool": "refund", "arguments": {"order": 7, "amount": 100}},
        {"tool": "refund", "arguments": {"order": 7, "amount": 100}},
        {"tool": "send_mail", "arguments": {"to": "ada@example.com", "text": "Your money is back."}},
    ]
    return said[len(results)] if len(results) < len(said) else {"text": "Done."}


class Tools:
    """The client's side of the Model Context Protocol."""

    def __init__(self):
        pipe = subprocess.PIPE
        self.server = subprocess.Popen([sys.executable, str(TOOLS)], stdin=pipe, stdout=pipe, text=True)
        self.count = 0
        about = {"name": "agent", "version": "1.0.0"}
        self.ask("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": about})
        self.say({"method": "notifications/initialized"})

    def say(self, message):
        self.server.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.server.stdin.flush()

    def ask(self, method, params):
        self.count += 1
        self.say({"id": self.count, "method": method, "params": params})
        return json.loads(self.server.stdout.readline())["result"]

    def call(self, call_id, step):
        meta = {"example.com/call-id": call_id}
        return self.ask("tools/call", {"name": step["tool"], "arguments": step["arguments"], "_meta": meta})


def run(name):
    kept = Path(f"{name}.json")
    steps = json.loads(kept.read_text()) if kept.exists() else []
    tools = Tools()

    def keep():
        whole = kept.with_suffix(".new")
        whole.write_text(json.dumps(steps))
        os.replace(whole, kept)

    while True:
        if not steps or "result" in steps[-1]:
            steps.append(model([step["result"] for step in steps]))
            keep()
        step = steps[-1]
        if "text" in step:
            return print(f"model: {step['text']}")
        # Killed before the result is kept, the run makes this call again: under the same id.
        step["result"] = tools.call(f"{name}/call-{len(steps)}", step)
        keep()
        print(f"call-{len(steps)} {step['tool']}: {step['result']['content'][0]['text']}")


if __name__ == "__main__":
    run(sys.argv[1])
