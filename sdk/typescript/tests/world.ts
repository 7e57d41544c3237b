/** What the tests are run against: a real gateway in a process of its own, or the double. */

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));

/** The built gateway: the one that is named, else that of this tree. */
function binary(): string {
  const program = process.env["TEST_GATEWAY"] ?? resolve(HERE, "../../../target/debug/onceward");
  if (!existsSync(program)) {
    throw new Error(`there is no gateway at ${program}: cargo build -p onceward-server`);
  }
  return program;
}

/** A gateway with a data folder of its own, on a free port of this machine. */
export class Gateway {
  private constructor(
    private process: ChildProcess,
    private readonly folder: string,
    readonly url: string,
  ) {}

  static async start(): Promise<Gateway> {
    const folder = mkdtempSync(join(tmpdir(), "onceward-js-"));
    return Gateway.#serve(folder, "127.0.0.1:0");
  }

  static async #serve(folder: string, listen: string): Promise<Gateway> {
    const gateway = spawn(binary(), ["serve", "--listen", listen], {
      cwd: folder,
      stdio: ["ignore", "ignore", "pipe"],
    });
    const said: string[] = [];
    for await (const line of createInterface({ input: gateway.stderr })) {
      said.push(line);
      if (!line.includes("is ready")) continue;
      const { address } = JSON.parse(line) as { address: string };
      // What it says from now on is nobody's matter, and must not fill the pipe.
      gateway.stderr.resume();
      return new Gateway(gateway, folder, `http://${address}`);
    }
    throw new Error(`the gateway does not start:\n${said.join("\n")}`);
  }

  /** Ends it without a word, as a power cut does. */
  async kill(): Promise<void> {
    const ended = new Promise((done) => this.process.once("exit", done));
    this.process.kill("SIGKILL");
    await ended;
  }

  /** Starts it again where it was, with the ledger that it left. */
  async startAgain(): Promise<void> {
    const { host } = new URL(this.url);
    this.process = (await Gateway.#serve(this.folder, host)).process;
  }

  /** Ends it, and takes its folder away. */
  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Waits for a condition. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 20_000;
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`it never came: ${what}`);
    await new Promise((next) => setTimeout(next, 10));
  }
}

/** A key that no other test has. */
export function fresh(name: string): string {
  return `${name}-${crypto.randomUUID()}`;
}
