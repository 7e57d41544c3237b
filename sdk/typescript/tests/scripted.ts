/** Gateways that answer as a test says. */

/** Quick enough for tests. */
export const QUICK = { baseMs: 1, capMs: 2 };

/** A gateway that answers as it is told, and remembers what it was asked. */
export function scripted(answers: (Response | Error)[]) {
  const asked: Request[] = [];
  const fetch: typeof globalThis.fetch = async (input, init) => {
    asked.push(new Request(input, init));
    const answer = answers.shift() ?? new Response("done");
    if (answer instanceof Error) throw answer;
    return answer;
  };
  return { fetch, asked };
}

/** A refusal of the gateway's. */
export function refusal(
  status: number,
  advice: string,
  code: string,
  more: Record<string, string> = {},
) {
  const type = `urn:onceward:problem:${code}`;
  const said = { type, code, advice, status, title: "T", detail: "D" };
  const headers = {
    "content-type": "application/problem+json",
    "onceward-advice": advice,
    ...more,
  };
  return new Response(JSON.stringify(said), { status, headers });
}

/** A claim as the gateway tells it; with `leaseMs`, by a clock that is not ours. */
export function claim(status: string, leaseMs?: number): Response {
  const said = { key: "a", status, fence: 7, operation: "op_1", attempt: 1 };
  const at = Date.parse("2026-01-01T00:00:00Z");
  const lease = leaseMs === undefined ? {} : { lease_until: new Date(at + leaseMs).toISOString() };
  const headers = leaseMs === undefined ? {} : { date: new Date(at).toUTCString() };
  return Response.json({ ...said, ...lease, effects: "non-idempotent" }, { headers });
}
