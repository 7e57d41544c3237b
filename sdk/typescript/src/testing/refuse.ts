/** Refusals, as the double says them. */

import { problem } from "../errors.js";
import type { Advice, Problem, ProblemCode } from "../shapes.js";

/** A problem as a response. */
export function refuse(
  code: ProblemCode,
  status: number,
  advice: Advice,
  title: string,
  detail: string,
  more: Partial<Problem> = {},
  headers = new Headers(),
): Response {
  headers.set("content-type", "application/problem+json");
  headers.set("onceward-advice", advice);
  const said = { ...problem(code, status, advice, title, detail), ...more };
  return new Response(JSON.stringify(said), { status, headers });
}
