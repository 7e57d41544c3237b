/** What the README shows is run, against a real gateway, and prints what it says there. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Gateway } from "./world.js";

const HERE = resolve(dirname(fileURLToPath(import.meta.url)), "..");

let gateway: Gateway;
before(async () => {
  gateway = await Gateway.start();
});
after(() => gateway.stop());

/** What a program prints that knows of the gateway by its environment alone. */
async function printed(file: string): Promise<string> {
  const environment = { ...process.env, ONCEWARD_URL: gateway.url, NO_COLOR: "1" };
  const options = { cwd: HERE, env: environment, timeout: 60_000 };
  const { stdout } = await promisify(execFile)("node", ["--import", "tsx", file], options);
  return stdout;
}

describe("the README", { concurrency: true }, () => {
  const text = readFileSync(join(HERE, "README.md"), "utf8");
  const blocks = [...text.matchAll(/```ts\n([\s\S]*?)```\n(?:```text\n([\s\S]*?)```\n)?/g)];
  const folder = join(HERE, "build/readme");
  mkdirSync(folder, { recursive: true });
  assert.ok(blocks.length > 5);
  for (const [at, [, code = "", wanted = ""]] of blocks.entries()) {
    const line = text.slice(0, text.indexOf(code)).split("\n").length;
    test(`line ${line} does what it says`, async () => {
      const file = join(folder, `${at}.ts`);
      writeFileSync(file, code);
      assert.equal(await printed(file), wanted);
    });
  }
});

test("the consumer has one effect for each message, whatever is delivered twice", async () => {
  const said = await printed(join(HERE, "examples/consumer.ts"));
  assert.equal(said, "5 deliveries, 2 mails: welcome-anna, welcome-otto\n");
});
