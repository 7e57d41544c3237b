#!/usr/bin/env python3
"""An agent is killed while it makes a refund, and runs again; then a mail's answer is lost."""

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stage import Stage, expect, kill, listen, until

with Stage(__file__, "GATEWAY", "SHOP") as stage:
    refunds, mails = [], []
    agents = []

    def shop(method, path, headers, body):
        """It knows no keys, and does what it is asked."""
        if path == "/mails":
            mails.append(json.loads(body))
            # It is sent, and its answer is lost.
            return None
        refunds.append(json.loads(body))
        kill(agents[-1])
        return 201, {"refund": len(refunds)}

    listen(stage.ports["SHOP"], shop)
    stage.start_gateway()

    def start_agent():
        program = [sys.executable, str(stage.here / "agent.py"), "run-1"]
        agents.append(stage.begin(*program, stdout=subprocess.PIPE, text=True))

    def operations(state):
        return json.loads(stage.command("ls", "--state", state, "--json"))

    # The shop has given the money back, and the agent is killed before it hears of it.
    start_agent()
    until("the agent is killed", lambda: agents[0].poll() is not None)
    expect("words of the agent before it was killed", len(agents[0].communicate()[0]), 0)
    until("the gateway has the answer", lambda: operations("done"))
    stage.kill_gateway()
    stage.start_gateway()

    start_agent()
    said = agents[1].communicate()[0].splitlines()
    print(*said, sep="\n")
    expect("refunds", len(refunds), 1)
    expect("mails", len(mails), 1)
    expect("steps of the agent", len(said), 4)

    # A person looks, and says so.
    (doubt,) = operations("in_doubt")
    expect("in doubt", doubt["label"], "run-1/call-3")
    stage.command("resolve", doubt["id"], "--as", "done", "--reason", "it is among the mails sent")
    expect("still in doubt", len(operations("in_doubt")), 0)
