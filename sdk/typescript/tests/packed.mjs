/**
 * The package as it is published: packed, installed into a folder that has nothing else, imported as
 * a module and required; its manifest and its types looked over.
 */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

const HERE = resolve(import.meta.dirname, "..");
const FOLDER = join(HERE, "build/packed");

function run(program, args, cwd) {
  return execFileSync(program, args, {
    cwd,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
}

rmSync(FOLDER, { recursive: true, force: true });
mkdirSync(join(FOLDER, "tarball"), { recursive: true });
run(
  "npm",
  ["pack", "--silent", "--ignore-scripts", "--pack-destination", join(FOLDER, "tarball")],
  HERE,
);
const [name] = readdirSync(join(FOLDER, "tarball"));
const tarball = join(FOLDER, "tarball", name);

const manifest = JSON.parse(readFileSync(join(HERE, "package.json"), "utf8"));
assert.equal(manifest.dependencies, undefined, "it has no dependencies");
const version = /VERSION = "([^"]+)"/.exec(readFileSync(join(HERE, "src/version.ts"), "utf8"))?.[1];
assert.equal(version, manifest.version, "what it calls itself is its version");

writeFileSync(join(FOLDER, "package.json"), '{"private": true}');
const quiet = ["--offline", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"];
run("npm", ["install", ...quiet, tarball], FOLDER);
assert.deepEqual(
  readdirSync(join(FOLDER, "node_modules")).filter((it) => !it.startsWith(".")),
  ["onceward"],
);

const body = `
const once = new Onceward({ fetch: new FakeGateway().fetch });
once.send({ to: "demo/orders", key: "k", body: { qty: 1 } }).then((answer) => {
  console.log(answer.status, typeof onceExpress, VERSION);
});
`;
writeFileSync(
  join(FOLDER, "module.mjs"),
  `import { Onceward, VERSION } from "onceward";
import { onceExpress } from "onceward/express";
import { FakeGateway } from "onceward/testing";
${body}`,
);
writeFileSync(
  join(FOLDER, "common.cjs"),
  `const { Onceward, VERSION } = require("onceward");
const { onceExpress } = require("onceward/express");
const { FakeGateway } = require("onceward/testing");
${body}`,
);
for (const file of ["module.mjs", "common.cjs"]) {
  assert.equal(run("node", [file], FOLDER), `201 function ${version}\n`, file);
}

// Its types are whole for a program that knows node's globals and no browser's.
writeFileSync(
  join(FOLDER, "typed.mts"),
  `import { Onceward, verifyWebhook } from "onceward";
import { onceExpress } from "onceward/express";
import { FakeGateway } from "onceward/testing";
const once = new Onceward({ fetch: new FakeGateway().fetch });
const answer = await once.send({ to: "demo/orders", body: { qty: 1 }, headers: { a: "b" } });
export const all: [number, unknown, unknown] = [answer.status, verifyWebhook, onceExpress];
`,
);
const options = {
  compilerOptions: {
    target: "ES2022",
    module: "NodeNext",
    lib: ["ES2022"],
    types: ["node"],
    typeRoots: [join(HERE, "node_modules/@types")],
    strict: true,
    exactOptionalPropertyTypes: true,
    noEmit: true,
  },
  files: ["typed.mts"],
};
writeFileSync(join(FOLDER, "tsconfig.json"), JSON.stringify(options));
run("npx", ["--no-install", "tsc", "--project", join(FOLDER, "tsconfig.json")], HERE);

run("npx", ["--no-install", "publint", "--strict", HERE], HERE);
run("npx", ["--no-install", "attw", "--profile", "node16", "--quiet", tarball], HERE);
console.log(`packed: ${name}, imported and required`);
